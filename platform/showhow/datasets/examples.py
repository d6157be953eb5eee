"""Examples: a problem explained at one level, as a row; which split a question belongs to; one block of candidates
drawn.

Pure. Everything here is a function of the dataset's spec and the block's number, never of who computes it.
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

# A block gives up after so many questions in a row outside its split. The smallest split has a tenth of all questions:
# where it has any, the chance of missing it so often is 0.9 ** 2000.
_MOST_MISSES = 2000


class Example(NamedTuple):
    """One row. `matched` is the text whose length in tokens the target must have; only the control `filler` has one."""

    question: str
    target: str
    answer: str
    matched: str | None


def draw_block(spec: DatasetSpec, block: int, examples: int) -> tuple[list[Example], list[int]]:
    """Draw a block of candidates that belong to the spec's split; return them with their hashes. Repeats are still in.

    They are fewer than `examples` when the task has hardly any question in that split. The stream is keyed by task,
    split, seed and block but not by level, so that all levels explain the same problems. A task that is a list gives
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
        # The next of the same split lends its steps: another question, and none of a split held out.
        to_example(spec.task, spec.level, spec.control_length, problems[index], problems[(index + 1) % len(problems)])
        for index in range(first, min(first + examples, len(problems)))
    ]
    return rows, [question_hash(row.question) for row in rows]


@lru_cache(maxsize=8)
def _in_split(task: Task, split: str, buckets: range, seed: int) -> list[Problem]:
    """Return a split's problems in an order of the dataset's seed, so that a part of them is no matter of their order
    in the file."""
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
    """Explain a problem of a task at a level. `other` lends its steps to the control `shuffled`."""
    layout = task.text_format
    target = render(problem, level, layout, control_length, other)
    matched = explain(problem, control_length, layout) if level is Level.FILLER else None
    return Example(problem.question, target, problem.answer, matched)
