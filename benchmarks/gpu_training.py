"""The parts of `benchmarks.gpu` about training steps."""

import functools
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from benchmarks.gpu_measure import (
    DEVICE,
    FEW,
    GPU,
    LARGE,
    LENGTH,
    ROWS,
    SMALL,
    T5,
    T5_LENGTH,
    T5_ROWS,
    built,
    busy,
    causal,
    cudnn_attention,
    engine_of,
    large_model,
    padded,
    recipe_of,
    seq2seq,
    small_batch,
    special,
    step_figures,
    synchronise,
    timed,
    waits,
)
from showhow.datasets.generate import generate
from showhow.datasets.tokenise import tokenise
from showhow.datasets.tokenizer import symbol_tokenizer
from showhow.machines.layout import Layout
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks import task_named
from showhow.tasks.explain import Level
from showhow.training.batches import IGNORED, Source, StepBatch, training_batches
from showhow.training.loop import train
from showhow.training.model import build_model
from showhow.training.tokens import TokenFile

Figures = dict[str, object]


def b_billion() -> Figures:
    """A llama of 1.2B parameters: building it, steps of several shapes, where their time goes, its state."""
    found: Figures = {}
    for place, make in (("CPU", functools.partial(build_model, LARGE, special(), 0)), ("device", large_model)):
        found[f"built on the {place}, s"] = timed(make, before=0)
    engine = engine_of(large_model())
    full = causal(ROWS, LENGTH)
    batches = {
        "full rows": full,
        "a row padded": padded(full),
        "a row padded, no mask": padded(full, has_mask=False),
        "long prompts": causal(ROWS, LENGTH, LENGTH * 3 // 4),
        "a quarter of the rows": causal(ROWS // 4 or 1, LENGTH),
    }
    found |= {name: step_figures(engine, batch) for name, batch in batches.items()}
    for name in ("full rows", "a row padded") if GPU else ():
        step = functools.partial(engine.step, batches[name], 1e-4)
        found |= {f"waits, {name}": waits(step), f"profile, {name}": busy(step)}
    start = time.perf_counter()
    size = sum(tensor.numel() * tensor.element_size() for _, tensor in engine.state())
    return found | {"state to the CPU": {"s": time.perf_counter() - start, "GB": size / 1e9}}


def c_small() -> Figures:
    """The quickstart's model by itself: steps as they are, and one recorded as a CUDA graph."""
    times, (masked, bare) = 200 if GPU else 5, (small_batch(), small_batch(has_mask=False))
    found: Figures = {}
    for precision in ("auto", "float32"):
        engine = engine_of(built(SMALL, FEW), precision)
        for name, batch in (("mask", masked), ("no mask", bare)):
            step = functools.partial(engine.step, batch, 1e-3)
            found[f"ms, {precision}, {name}"] = 1e3 * timed(step, times)
    if GPU:
        found |= {"waits": waits(step), "profile": busy(step)}
        found["ms, recorded"] = 1e3 * timed(_recorded(bare), 1000)
    return found


def _recorded(batch: StepBatch) -> Callable[[], None]:
    """Return a step of a fixed shape replayed as one graph. Its loss covers all places, as a boolean index waits."""
    model = built(SMALL, FEW)
    inputs = {name: tensor.to(DEVICE) for name, tensor in batch.micro_batches[0].items()}
    labels = inputs.pop("labels")[:, 1:].flatten()
    parameters = [*model.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=torch.tensor(1e-3, device=DEVICE), fused=True, capturable=True)

    def step() -> None:
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            logits = model(**inputs, use_cache=False).logits[:, :-1].flatten(0, 1)
            cross_entropy(logits.float(), labels, ignore_index=IGNORED).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def e_deepspeed() -> Figures | str:
    """The same steps by DeepSpeed at ZeRO stage 1; the last part, as this process joins a group for it."""
    if find_spec("deepspeed") is None:
        return "skipped: DeepSpeed is not installed"
    from showhow.training.deepspeed_engine import DeepSpeedEngine

    layout = Layout(micro_batch_size=ROWS, zero_stage=1)
    engine = DeepSpeedEngine(built(LARGE), recipe_of(), layout)
    engine.model.train()
    return {"full rows": step_figures(engine, causal(ROWS, LENGTH))}  # type: ignore[arg-type]


def h_t5() -> Figures:
    """A T5 of the base size."""
    engine, batch = engine_of(built(T5)), seq2seq(T5_ROWS, T5_LENGTH)
    found: Figures = {"step": step_figures(engine, batch, 5)}
    if GPU:
        step = functools.partial(engine.step, batch, 1e-4)
        found |= {"waits": waits(step), "profile": busy(step)}
    return found


def l_loop() -> Figures:
    """The training loop over a task's rows, whose lengths differ: the first time, again, and without cuDNN."""
    task = task_named("listops", {"style": "symbols", "min_length": 10, "max_length": 60 if GPU else 12})
    steps = 40 if GPU else 2
    recipe = recipe_of(steps=steps)
    spec = DatasetSpec(
        task=task, level=Level.LONG, split=TRAIN, examples=ROWS * steps, seed=0, control_length=Level.LONG
    )
    with tempfile.TemporaryDirectory() as folder:
        made = generate(spec, Path(folder), on_cluster=False)
        file = TokenFile(tokenise(made, symbol_tokenizer([task]), 4096, 0.0))
        engine = engine_of(built(LARGE, file.special.vocabulary))
        found: Figures = {"tokens a row": float((file.prompt_lengths + file.target_lengths).mean())}
        for name, is_on in (("first", True), ("again", True), ("without cuDNN", False)):
            with cudnn_attention(is_on):
                (end,) = train(engine, recipe, training_batches(Source(file, recipe, 0, False)), recipe.max_examples)
            found[f"tokens/s, {name}"] = end.tokens / end.train_seconds
    return found


def m_masks() -> Figures:
    """Whether padding on the right needs a mask: loss and gradient norm with and without one."""
    batch, engine = causal(2, LENGTH // 4), engine_of(large_model())
    cases = {"mask": padded(batch), "no mask": padded(batch, has_mask=False)}
    return {name: [float(one) for one in engine.step(given, 0.0)] for name, given in cases.items()}


def t_tf32() -> Figures:
    """TF32 for recipes of float32."""
    engine, batch = engine_of(large_model(), "float32"), causal(ROWS // 4 or 1, LENGTH)
    found: Figures = {}
    for how in ("highest", "high"):
        torch.set_float32_matmul_precision(how)
        found[how] = step_figures(engine, batch, 3)
    torch.set_float32_matmul_precision("highest")
    return found


def z_compiled() -> Figures:
    """torch.compile; after all parts that use this model, as it stays compiled."""
    engine, batch = engine_of(large_model()), causal(ROWS, LENGTH)
    engine.model.compile(dynamic=False)
    start = time.perf_counter()
    engine.step(batch, 1e-4)
    synchronise()
    return {"first step, s": time.perf_counter() - start, "full rows": step_figures(engine, batch)}
