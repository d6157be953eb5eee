"""Examples a second and core: drawn, worked out, explained at one level, split by content, repeats dropped, written as
Parquet shards, hashed.

The peer is reasoning-gym, whose items are a question and an answer without worked steps: once the items alone, in
memory, as its users take them; once with what we do besides, written as a competent user would. Its tasks are the
nearest there are: chain_sum is the same kind of question as modular_sum; beside ListOps of length 50 to 100 (some 11
nested operators over 50 numbers) stand basic_arithmetic (2 to 6 terms, 34 characters) and list_functions (one rule
applied to a few short lists, in 525 characters of mostly fixed text), which are far less work an item.

The limit is the task alone: as many problems drawn and worked out as the dataset needs (a fifth of them belong to other
splits), and the target of each that is kept, with nothing around it. What is missing to it is splitting, dropping
repeats, counting, hashing and Parquet.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import reasoning_gym

from benchmarks.measure import Figure, alternately, spread
from showhow.datasets.generate import generate
from showhow.datasets.manifest import Manifest
from showhow.fingerprint import file_sha256
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.seeds import rng_for
from showhow.tasks import task_named
from showhow.tasks.base import Task
from showhow.tasks.explain import Level, explain

REAL_LEVELS = (Level.NONE, Level.SHORT, Level.MEDIUM, Level.LONG)
TRAIN_SHARE = 0.8


@dataclass(frozen=True)
class Case:
    """One of our tasks, how many examples of it are made, and its peers: tasks of reasoning-gym with their settings."""

    name: str
    changes: dict[str, Any]
    examples: int
    peers: dict[str, dict[str, Any]]


CASES = (
    Case(
        "modular_sum",
        {"terms": 8},
        40_000,
        {"chain_sum": {"min_terms": 8, "max_terms": 8, "min_digits": 1, "max_digits": 1}},
    ),
    Case("listops-30", {}, 4_000, {"basic_arithmetic": {}, "list_functions": {}}),
)


def figures(full: bool = False) -> list[Figure]:
    """Generate each case at level long (in the long form: at every level) beside its peers, then draw problems and
    explain each at every level."""
    found = []
    for case in CASES:
        task = task_named(case.name, case.changes)
        for level in REAL_LEVELS if full else (Level.LONG,):
            found += _generated(case, task, level)
        found.append(_explained(case, task))
    return found


def _generated(case: Case, task: Task, level: Level) -> list[Figure]:
    spec = DatasetSpec(
        task=task, level=level, split=TRAIN, examples=case.examples, seed=0, control_length=Level.LONG
    )  # fmt: skip
    alone, _ = alternately(lambda: _task_alone(case, task, level), None)
    found = []
    for label, peer in _peers(case).items():
        taken, theirs = alternately(lambda: _generate(spec), peer)
        found.append(
            Figure(
                f"generate {case.name} at {level} (peer: {label})",
                "examples/s",
                case.examples / median(taken),
                spread(taken),
                peer=case.examples / median(theirs),
                limit=case.examples / median(alone),
            )
        )
    return found


def _peers(case: Case) -> dict[str, Callable[[], object]]:
    """Each peer by what its row says of it."""
    found: dict[str, Callable[[], object]] = {}
    for name, settings in case.peers.items():
        found[f"{name}, no steps, in memory"] = partial(_items, name, settings, case.examples)
        found[f"{name}, no steps, split, written"] = partial(_written, name, settings, case.examples)
    return found


def _explained(case: Case, task: Task) -> Figure:
    taken, _ = alternately(lambda: _at_every_level(case, task), None)
    return Figure(
        f"draw {case.name} and explain it at all four levels",
        "problems/s",
        case.examples / median(taken),
        spread(taken),
    )


def _generate(spec: DatasetSpec) -> None:
    home = Path(tempfile.mkdtemp())
    manifest = Manifest.read(generate(spec, home, on_cluster=False))
    if manifest is None or manifest.rows != spec.examples:
        raise AssertionError("the dataset does not have the rows asked for")
    shutil.rmtree(home)


def _task_alone(case: Case, task: Task, level: Level) -> None:
    rng, layout = rng_for("benchmark"), task.text_format
    for _ in range(round(case.examples * (1 / TRAIN_SHARE - 1))):
        task.draw(rng)
    for _ in range(case.examples):
        explain(task.draw(rng), level, layout)


def _at_every_level(case: Case, task: Task) -> None:
    rng, layout = rng_for("benchmark"), task.text_format
    for _ in range(case.examples):
        problem = task.draw(rng)
        for level in REAL_LEVELS:
            explain(problem, level, layout)


def _items(name: str, settings: dict[str, Any], examples: int) -> list[tuple[str, str]]:
    dataset = reasoning_gym.create_dataset(name, size=examples, seed=0, **settings)
    return [(item["question"], item["answer"]) for item in dataset]


def _written(name: str, settings: dict[str, Any], examples: int) -> None:
    """Write as many of the peer's items as ours: of the same split by hash, no question twice, hashed."""
    dataset = reasoning_gym.create_dataset(name, size=4 * examples, seed=0, **settings)
    kept: dict[str, str] = {}
    for item in dataset:
        question = item["question"]
        bucket = int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big") % 100
        if bucket < 100 * TRAIN_SHARE:
            kept.setdefault(question, item["answer"])
            if len(kept) == examples:
                break
    else:
        raise AssertionError(f"{name} repeats itself too often")
    home = Path(tempfile.mkdtemp())
    pq.write_table(
        pa.table({"question": list(kept), "answer": list(kept.values())}), home / "items.parquet", compression="zstd"
    )
    file_sha256(home / "items.parquet")
    shutil.rmtree(home)
