"""Draws one block of a dataset's candidates: problems of its split, each explained at its level, as rows.

Pure. Everything here is a function of the dataset's spec and the block's number, not of the process that computes it.
"""

import random
from functools import lru_cache
from typing import NamedTuple

from showhow.errors import UserError
from showhow.sections.dataset_spec import DatasetSpec, question_hash
from showhow.seeds import rng_for
from showhow.tasks.base import Problem, Task
from showhow.tasks.explain import Level, explain, render

BLOCK_EXAMPLES = 8192

# A block stops after this many questions in a row outside its split. The smallest split has a tenth of all questions:
# if it has any, the chance of so many misses is 0.9 ** 2000.
_MOST_MISSES = 2000


class Example(NamedTuple):
    """One row. `matched` is the text whose length in tokens the target must have; only the control `filler` has one."""

    question: str
    target: str
    answer: str
    matched: str | None


def draw_block(spec: DatasetSpec, block: int, examples: int) -> tuple[list[Example], list[int]]:
    """Draw a block of candidates in the spec's split; return them with their hashes, with duplicates.

    They are fewer than `examples` when the task has hardly any question in that split. The random stream is keyed by
    task, split, seed and block but not by level, so that all levels explain the same problems. A listed task yields
    each of its problems once."""
    if spec.task.listed is not None:
        return _listed_block(spec, block, examples)
    key = ("problems", spec.task.identity, spec.split, spec.seed, block)
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


def _listed_block(spec: DatasetSpec, block: int, examples: int) -> tuple[list[Example], list[int]]:
    problems = _in_split(spec.task, spec.split, spec.buckets, spec.seed)
    if len(problems) == 1 and spec.level is Level.SHUFFLED:
        raise UserError(f"the {spec.split} split has one question, and no other whose steps `shuffled` could show")
    first = block * BLOCK_EXAMPLES
    rows = [
        # `shuffled` takes the steps of the next problem: another question, but never one of a held-out split.
        to_example(spec.task, spec.level, spec.control_length, problems[index], problems[(index + 1) % len(problems)])
        for index in range(first, min(first + examples, len(problems)))
    ]
    return rows, [question_hash(row.question) for row in rows]


@lru_cache(maxsize=8)
def _in_split(task: Task, split: str, buckets: range, seed: int) -> list[Problem]:
    """Return a split's problems in an order given by the dataset's seed, so that a subset does not depend on their
    order in the file."""
    problems = [problem for problem in task.listed or () if question_hash(problem.question) % 100 in buckets]
    rng_for("listed", task.identity, split, seed).shuffle(problems)
    return problems


def _another(task: Task, problem: Problem, rng: random.Random) -> Problem:
    """Draw a problem with another question."""
    while True:
        other = task.draw(rng)
        if other.question != problem.question:
            return other


def to_example(
    task: Task, level: Level, control_length: Level, problem: Problem, other: Problem | None = None
) -> Example:
    """Explain a problem of a task at a level. `other`: the problem whose steps the control `shuffled` shows."""
    layout = task.text_format
    target = render(problem, level, layout, control_length, other)
    matched = explain(problem, control_length, layout) if level is Level.FILLER else None
    return Example(problem.question, target, problem.answer, matched)
