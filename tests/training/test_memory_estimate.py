"""Law of the estimate of memory: real processes that train and evaluate peak within a quarter of it. Each is a program
of its own, so that its peak is that of one run, and imports included: what the machine has to have."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from showhow.machines.assignment import Assignment
from showhow.machines.estimate import Memory, memory_of
from showhow.machines.layout import Layout
from showhow.models.lengths import training_lengths
from showhow.models.sizes import sizes_of
from showhow.sections.trial import Trial

WITHIN = 0.25
LLAMA = {"hidden_size": 256, "layers": 4}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is read from /proc")


def peak_of(run: Assignment) -> int:
    """Bytes that a process held at most while it trained a run."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, __file__, run.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def estimate(run: Assignment) -> Memory:
    sizes = sizes_of(run.trial)
    assert sizes is not None
    return memory_of(run.trial, sizes, training_lengths(run.trial), run.layout, on_gpu=False)


@pytest.fixture
def assigned(tmp_path: Path, prepared: Callable[..., Assignment]) -> Callable[..., Assignment]:
    def made(model: dict[str, Any], batch: int, precision: str = "float32", **layout: Any) -> Assignment:
        trial = {
            "name": "trial-000",
            "arm": "long",
            "setting": {},
            "level": "long",
            "point": {},
            "method": {"kind": "plain"},
            "budget": {"unit": "examples", "amount": 4 * batch},
            "task": {"kind": "modular_sum", "terms": 12},
            "data": {"train_examples": 200, "eval_examples": 16},
            "model": {"kind": "scratch", "architecture": "llama", **model},
            "recipe": {"batch_size": batch, "max_examples": 4 * batch, "learning_rate": 1e-4, "precision": precision},
            "evaluation": {"every_examples": 4 * batch},
        }
        laid = Layout.model_validate({"micro_batch_size": batch, **layout})
        return prepared(Trial.model_validate_json(json.dumps(trial)), layout=laid)

    return made


CASES: dict[str, dict[str, Any]] = {
    "llama": {"model": LLAMA, "batch": 32},
    "llama-bfloat16-parts": {"model": LLAMA, "batch": 32, "precision": "bfloat16", "micro_batch_size": 8},
    "llama-recomputed": {"model": LLAMA, "batch": 32, "recompute_activations": True},
    "t5": {"model": {"architecture": "t5", "hidden_size": 256, "layers": 4}, "batch": 32},
    "deepspeed": {"model": LLAMA, "batch": 16, "zero_stage": 2, "deepspeed": {}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_process_holds_what_the_estimate_says(assigned: Callable[..., Assignment], case: str) -> None:
    run = assigned(**CASES[case])
    assert estimate(run).total == pytest.approx(peak_of(run), rel=WITHIN)


def test_a_larger_model_is_estimated_as_well_as_what_the_program_takes(assigned: Callable[..., Assignment]) -> None:
    run = assigned({"hidden_size": 512, "layers": 6}, 8)
    memory = estimate(run)
    assert memory.total - memory.process == pytest.approx(peak_of(run) - memory.process, rel=WITHIN)


def main() -> None:
    import torch

    from showhow.bench.fine_tune import fine_tune

    torch.set_num_threads(1)
    fine_tune(Assignment.model_validate_json(sys.argv[1]), lambda _: None)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(int(found[1]) * 1024 if found else 0)


if __name__ == "__main__":
    main()
