"""What training and replies cost on one GPU: some nine minutes on an H100 or H200.

`python -m benchmarks.gpu [LETTERS]` runs the parts whose names begin with these letters, else all; each prints one line
of JSON. A part that fails says so, and the next one begins; one that needs DeepSpeed or Ray says when it is missing.
Without a GPU the sizes are tiny: that checks the parts, and their figures mean nothing. docs/log.md tells what was
found.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from benchmarks.gpu_measure import (
    DEVICE,
    GPU,
    LARGE,
    LENGTH,
    MANY,
    ROWS,
    T5,
    T5_LENGTH,
    T5_ROWS,
    built,
    causal,
    clean,
    engine_of,
    large_model,
    peak_gb,
    recipe_of,
    seq2seq,
    step_figures,
    timed,
    used_mb,
)
from benchmarks.gpu_training import (
    b_billion,
    c_small,
    e_deepspeed,
    h_t5,
    l_loop,
    m_masks,
    t_tf32,
    z_compiled,
)
from showhow.machines.estimate import memory_of
from showhow.machines.layout import Layout
from showhow.models.lengths import Lengths
from showhow.models.sizes import sizes_of
from showhow.sections.recipe import ScratchModel
from showhow.study.study import Study

QUICKSTART = "search_spaces/quickstart.toml"
PACKAGES = ("torch", "transformers", "deepspeed", "ray", "mlflow", "flash_attn", "bitsandbytes")
Figures = dict[str, object]


def a_environment() -> Figures:
    """The machine: versions, and what its copies and matrix products reach."""
    found: Figures = {name: _version(name) for name in PACKAGES} | {
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "compiler": (shutil.which("c++") or shutil.which("g++")) is not None,
    }
    if GPU:
        found["device"] = torch.cuda.get_device_name()
        taken = used_mb()
        torch.ones(1, device=DEVICE)
        found["MB taken before and after one number"] = (taken, used_mb())
    size = 8192 if GPU else 256
    source = torch.randn(size, size * (16 if GPU else 1), device=DEVICE)
    target = torch.empty_like(source)
    found["copy TB/s"] = 8 * source.numel() / timed(lambda: target.copy_(source), 10) / 1e12
    for name, dtype, how in (("bfloat16", torch.bfloat16, "high"), *_FLOAT32):
        torch.set_float32_matmul_precision(how)
        left, right = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
        found[f"product TFLOP/s, {name}"] = 2 * size**3 / timed(functools.partial(torch.matmul, left, right), 10) / 1e12
    torch.set_float32_matmul_precision("highest")
    return found


_FLOAT32 = (("TF32", torch.float32, "high"), ("float32", torch.float32, "highest"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def d_side_by_side() -> Figures:
    """Processes that train the quickstart's model at the same time, on the GPU and on one thread of the CPU each."""
    cases = [("GPU", count) for count in (1, 4, 16)] if GPU else []
    cases += [("CPU", count) for count in ((1, 16) if GPU else (1, 2))]
    return {f"{where} x {count}": _side_by_side(where, count) for where, count in cases}


def _side_by_side(where: str, count: int) -> Figures:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({} if where == "GPU" else {"CUDA_VISIBLE_DEVICES": ""})
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    before = used_mb()
    started = [subprocess.Popen([*_PROCESS, "small"], **pipes) for _ in range(count)]  # type: ignore[call-overload]
    for process in started:
        process.stdout.readline()
    taken = used_mb() - before
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    found = [json.loads(process.communicate(timeout=120)[0])["ms"] for process in started]
    return {
        "ms": sum(found) / count,
        "steps/s in all": sum(1e3 / one for one in found),
        "MB of the GPU each": taken / count,
    }


_PROCESS = (sys.executable, "-m", "benchmarks.gpu_process")


def f_replies() -> Figures:
    """Replies by autocast and by bfloat16 weights: each first in a process of its own, and without cuDNN."""
    return {case: _alone(case) for case in ("autocast first", "bfloat16 weights first", "replies without cuDNN")}


def v_new_lengths() -> Figures:
    """Lengths that a process meets for the first time: whole steps, and attention by itself."""
    return {case: _alone(case) for case in ("steps", "steps without cuDNN", "attention")}


def _alone(case: str) -> object:
    done = subprocess.run([*_PROCESS, case], capture_output=True, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr[-1500:]


def n_memory() -> Figures:
    """Peaks of torch's allocator in a step beside the estimate, which leaves out what the process itself takes."""
    cases = {
        "bfloat16": ("bfloat16", ROWS, 0),
        "bfloat16, a quarter of the rows": ("bfloat16", ROWS // 4 or 1, 0),
        "bfloat16, long prompts": ("bfloat16", ROWS, LENGTH * 3 // 4),
        "float32, half of the rows": ("float32", ROWS // 2, 0),
        "bfloat16, recomputed": ("bfloat16", ROWS, 0),
    }
    found: Figures = {name: _memory(*case, name.endswith("recomputed")) for name, case in cases.items()}
    step_figures(engine_of(built(T5)), seq2seq(T5_ROWS, T5_LENGTH), 3)
    estimate = _estimate(T5, "bfloat16", T5_ROWS, (T5_LENGTH, T5_LENGTH))
    return found | {"T5": {"measured GB": peak_gb(), "estimate GB": estimate}}


def _memory(precision: str, rows: int, prompt: int, is_recomputed: bool) -> Figures:
    engine = engine_of(large_model(), precision)
    if is_recomputed:
        engine.model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    try:
        step_figures(engine, causal(rows, LENGTH, prompt), 3)
    finally:
        if is_recomputed:
            engine.model.activation_checkpointing_disable()  # type: ignore[operator]
    estimate = _estimate(LARGE, precision, rows, (prompt, LENGTH - prompt), is_recomputed)
    return {"measured GB": peak_gb(), "estimate GB": estimate}


def _estimate(
    model: ScratchModel, precision: str, rows: int, lengths: tuple[int, int], is_recomputed: bool = False
) -> Figures:
    """Return the estimate of memory for rows of such prompts and targets, by its parts."""
    trial = Study.load(QUICKSTART).trials[0]
    settings = {
        "model": model,
        "recipe": recipe_of(rows, precision),
        "data": trial.data.model_copy(update={"eval_examples": 1}),
    }
    trial = trial.model_copy(update=settings)
    sizes, count = sizes_of(trial), model.parameter_count(MANY)
    if sizes is None:
        raise ValueError("a scratch model has known sizes")
    sizes = replace(sizes, parameters=count, trained=count, vocabulary=MANY, embedded=MANY * model.hidden_size)
    layout = Layout(micro_batch_size=rows, recompute_activations=is_recomputed)
    found = memory_of(trial, sizes, Lengths(*lengths, *lengths), layout, GPU)
    parts = {name: size / 1e9 for name, size in found.parts.items() if size and name != "process"}
    return {"total": sum(parts.values()), **parts}


def r_study() -> Figures | str:
    """A short quickstart by Ray, four runs at once on the GPU, from the command to its end."""
    if find_spec("ray") is None or find_spec("mlflow") is None:
        return "skipped: Ray or MLflow is not installed"
    examples = 3200 if GPU else 160
    changes = (
        *("seeds=[0]", "search.samples=1", "search.learning_rate={grid=[5e-4]}", "evaluation.validation_examples=16"),
        *(f"recipe.max_examples={examples}", f"evaluation.every_examples={examples}", "data.train_examples=2000"),
        *("data.eval_examples=16", "recipe.warmup_examples=80", f"resources.gpus_per_device={0.25 if GPU else 0}"),
    )
    with tempfile.TemporaryDirectory() as home:
        words = [sys.executable, "-m", "showhow.cli", "run", QUICKSTART]
        words += [word for change in changes for word in ("--set", change)]
        start = time.perf_counter()
        done = subprocess.run(
            words, env=os.environ | {"SHOWHOW_HOME": home}, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
    return {"s": seconds} if done.returncode == 0 else (done.stdout + done.stderr)[-1500:]


PARTS: tuple[Callable[[], object], ...] = (
    a_environment,
    b_billion,
    c_small,
    d_side_by_side,
    f_replies,
    h_t5,
    l_loop,
    m_masks,
    n_memory,
    r_study,
    t_tf32,
    v_new_lengths,
    z_compiled,
    e_deepspeed,
)


def main() -> None:
    """Run the parts whose letters are given, else all."""
    letters = sys.argv[1] if len(sys.argv) > 1 else "".join(part.__name__[0] for part in PARTS)
    unknown = set(letters) - {part.__name__[0] for part in PARTS}
    if unknown:
        sys.exit(f"no part begins with {', '.join(sorted(unknown))}; there are {', '.join(p.__name__ for p in PARTS)}")
    for part in PARTS:
        if part.__name__[0] in letters:
            start = time.perf_counter()
            try:
                found = part()
            except Exception:  # noqa: BLE001 - a part that fails must not cost the others their turn
                found = traceback.format_exc()[-1500:]
            clean()
            print(json.dumps({part.__name__: _rounded(found), "s": round(time.perf_counter() - start)}), flush=True)


def _rounded(value: object) -> object:
    """Return the same with numbers of four digits."""
    if isinstance(value, dict):
        return {str(name): _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
