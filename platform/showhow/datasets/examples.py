"""Examples: a problem explained at one level, as a row; which split a question belongs to; one block of candidates
drawn.

Pure. Everything here is a function of the dataset's spec and the block's number, never of who computes it.
"""

import hashlib
import random
from typing import NamedTuple

from showhow.seeds import rng_for
from showhow.study.dataset_spec import DatasetSpec
from showhow.tasks.base import Problem, Task
from showhow.tasks.explain import Level, explain, render

BLOCK_EXAMPLES = 8192

# A block gives up after so many questions in a row outside its split. The smallest split has a tenth of all questions:
# where it has any, the chance of missing it so often is 0.9 ** 2000.
_MOST_MISSES = 2000


class Example(NamedTuple):
    """One row. `matched` is the text whose length in tokens the target must have; only the control `filler` has one."""

    question: str
    target: str
    answer: str
    matched: str | None


def question_hash(question: str) -> int:
    """Return a 63-bit hash of a question's text: equal questions are duplicates, and the hash decides the split."""
    return int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big") >> 1


def draw_block(spec: DatasetSpec, block: int, examples: int) -> tuple[list[Example], list[int]]:
    """Draw a block of candidates that belong to the spec's split; return them with their hashes. Repeats are still in.

    They are fewer than `examples` when the task has hardly any question in that split. The stream is keyed by task,
    split, seed and block but not by level, so that all levels explain the same problems."""
    key = ("problems", spec.task.model_dump_json(), spec.split, spec.seed, block)
    rng, other_rng = rng_for(*key), rng_for("others", *key)
    buckets = spec.buckets
    rows: list[Example] = []
    hashes: list[int] = []
    misses = 0
    while len(rows) < examples and misses < _MOST_MISSES:
        problem = spec.task.draw(rng)
        hashed = question_hash(problem.question)
        if hashed % 100 not in buckets:
            misses += 1
            continue
        misses = 0
        other = _another(spec.task, problem, other_rng) if spec.level is Level.SHUFFLED else None
        rows.append(to_example(spec.task, spec.level, spec.control_length, problem, other))
        hashes.append(hashed)
    return rows, hashes


def _another(task: Task, problem: Problem, rng: random.Random) -> Problem:
    """Draw a problem with another question."""
    while True:
        other = task.draw(rng)
        if other.question != problem.question:
            return other


def to_example(
    task: Task, level: Level, control_length: Level, problem: Problem, other: Problem | None = None
) -> Example:
    """Explain a problem of a task at a level. `other` lends its steps to the control `shuffled`."""
    layout = task.text_format
    target = render(problem, level, layout, control_length, other)
    matched = explain(problem, control_length, layout) if level is Level.FILLER else None
    return Example(problem.question, target, problem.answer, matched)
