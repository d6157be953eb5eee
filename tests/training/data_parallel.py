"""What processes that train together do in the tests of DeepSpeed: real ones, over gloo. Run once, for all the tests,
as starting them takes longer than all else."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from showhow.machines.layout import Layout
from showhow.sections.adapter import Lora
from showhow.sections.recipe import ModelSpec, PretrainedModel, Recipe, ScratchModel
from showhow.tasks.explain import Level
from showhow.training.adapter import bare
from showhow.training.batches import Source, training_batches
from showhow.training.engine import Engine, PlainEngine
from showhow.training.evaluate import Grading, evaluate
from showhow.training.model import build_model, is_seq2seq
from showhow.training.ranks import rank, summed
from showhow.training.tokens import TokenFile

STEPS, RATE = 4, 3e-3
LLAMA = ScratchModel(architecture="llama", hidden_size=32, layers=2, heads=2, initializer_range=0.1)
T5 = ScratchModel(architecture="t5", hidden_size=32, layers=2, heads=2)
RECIPE = Recipe(
    batch_size=8, max_examples=400, learning_rate=RATE, weight_decay=0.1, gradient_clip=2.0, precision="float32"
)
# Without it small models have no parameter that is worth sharing out.
SHARE_ALL: dict[str, Any] = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


@dataclass(frozen=True, eq=False)
class Case:
    """A model trained for some steps and then evaluated. after: go on from the state that a case left. room_for: so
    many replies at a time are all that the second process has room for."""

    model: ModelSpec = LLAMA
    layout: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    adapter: Lora | None = None
    after: str | None = None
    is_evaluated: bool = False
    room_for: int | None = None

    def __hash__(self) -> int:
        return hash(repr(self))

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)

    @property
    def micro_batch_size(self) -> int:
        return int(self.layout.get("micro_batch_size", 4))


Result = dict[str, Any]


def run(case: Case, folder: Path, engine_of: Callable[[torch.nn.Module, Recipe, Layout], Engine]) -> Result:
    """Return the losses and gradient norms of each step, the replies of the model at the end, and its shape."""
    file, recipe = TokenFile(folder / "tokens"), RECIPE.model_copy(update=case.recipe)
    layout = Layout(**{"micro_batch_size": 4, "deepspeed": SHARE_ALL} | case.layout)
    with sharded(case, recipe, layout):
        model = build_model(case.model, file.special, 0, case.adapter, recipe, layout.recompute_activations)
    held = sum(parameter.numel() for parameter in model.parameters())
    engine = engine_of(model, recipe, layout)
    first = 0
    if case.after is not None:
        state, first = load_file(folder / f"{case.after}.safetensors"), STEPS
        engine.load_state(state.__getitem__, STEPS)
    engine.model.train()
    steps = []
    batches = training_batches(Source(file, recipe, 0, is_seq2seq(model)), case.micro_batch_size, first)
    for batch in islice(batches, STEPS):
        loss, norm = engine.step(batch, RATE)
        steps.append((float(summed(loss)), float(norm)))
    result: Result = {"steps": steps, "held": held, "flops": engine.flops_per_token}
    if case.is_evaluated:
        told = bare(model).register_forward_pre_hook(partial(find_room, case), with_kwargs=True)
        result["evaluations"] = list(replies(engine, folder, file))
        told.remove()
        engine.model.train()
        result["after evaluation"] = [float(summed(engine.step(batch, RATE)[0])) for batch in islice(batches, 2)]
    return result | {"state": dict(engine.state())}


def sharded(case: Case, recipe: Recipe, layout: Layout) -> Any:
    if layout.devices == 1:
        return nullcontext()
    from showhow.training.deepspeed_engine import sharded_while_built

    return sharded_while_built(case.model, recipe, layout)


def find_room(case: Case, _model: torch.nn.Module, _: Any, inputs: dict[str, Any]) -> None:
    if case.room_for is not None and rank() == 1 and len(inputs["input_ids"]) > case.room_for:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def replies(engine: Engine, folder: Path, file: TokenFile) -> Iterator[Any]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for questions, at_once in ((7, 2), (1, 2)):  # of one question a second process has nothing to ask
        with engine.autocast():
            found = evaluate(engine.model, Grading(tokenizer, Level.LONG), file, questions, at_once)
        written = [sample["reply"] for sample in found.samples]
        yield [found.grades, found.metrics, written, found.asked_at_once, found.shortage]


def plain(case: Case, folder: Path) -> Result:
    return run(case, folder, lambda model, recipe, _: PlainEngine(model, recipe))


def process(number: int, folder: Path, together: dict[str, Case], alone: dict[str, Case]) -> None:
    """Processes 0 and 1 run the first cases together, process 2 the others alone. Each writes down what it saw."""
    torch.set_num_threads(1)
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0"}
    if number < 2:
        store = f"file://{folder / 'store'}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=number, world_size=2)
    from showhow.training.deepspeed_engine import DeepSpeedEngine

    for name, case in (together if number < 2 else alone).items():
        started = time.time()
        result = run(case, folder, DeepSpeedEngine)
        result["seconds"] = time.time() - started
        if number != 1:
            save_file({key: tensor.clone() for key, tensor in result["state"].items()}, folder / f"{name}.safetensors")
        del result["state"]
        (folder / f"{name}-{number}.json").write_text(json.dumps(result))
    if number < 2:
        torch.distributed.barrier()


def seen(folder: Path, name: str) -> list[Result]:
    """Return what the processes of a case wrote down."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}-[012].json"))]


def pretrained(folder: Path) -> PretrainedModel:
    """Save a small model as others publish theirs."""
    model: Any = build_model(LLAMA, TokenFile(folder / "tokens").special, 0)
    model.save_pretrained(folder / "model")
    return PretrainedModel(kind="pretrained", name=str(folder / "model"))
