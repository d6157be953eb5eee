"""Sorts the rows of a user's file: problems, rows that cannot be used, and rows that repeat a question. Pure.

`rows.py` finds the columns and checks single rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from showhow.errors import UserError
from showhow.tasks.base import Problem
from showhow.tasks.imported.file import Line
from showhow.tasks.imported.rows import Columns, Mistake, problem_in

_SHOWN = 5  # of faults of one kind


class Rows(NamedTuple):
    """The rows of a file: the problems in order and by question, and the numbers of rows that were read, were unusable
    (by reason) and repeated a question. contradictions: rows that repeat a question with another answer than the first
    row, which is the one used."""

    listed: tuple[Problem, ...]
    problems: dict[str, Problem]
    read: int
    bad: dict[str, int]
    repeated: int
    contradictions: tuple[Mistake, ...]

    def contradictions_in(self, path: str) -> str | None:
        """Return a message naming the first rows that contradict earlier ones; None where there are none."""
        if not self.contradictions:
            return None
        count = len(self.contradictions)
        rows = "1 row repeats a question" if count == 1 else f"{count:,} rows repeat a question"
        message = f"{path}: {rows} with another answer; the first answer is kept"
        return "\n".join([message, *_named(path, self.contradictions)])


def rows_in(lines: Sequence[Line], settings: Mapping[str, Any]) -> Rows:
    """Sort a file's rows by a task's settings. Raises UserError when too many of them cannot be used."""
    columns = Columns.of(settings, lines)
    problems: dict[str, Problem] = {}
    first_line: dict[str, int] = {}
    mistakes: list[Mistake] = []
    contradictions: list[Mistake] = []
    for line in lines:
        problem = problem_in(line, columns)
        if isinstance(problem, Mistake):
            mistakes.append(problem)
            continue
        first = problems.setdefault(problem.question, problem)
        first_number = first_line.setdefault(problem.question, line.number)
        if first.answer != problem.answer:
            reason = f'has the answer "{problem.answer}", and the same question in line {first_number} has'
            contradictions.append(Mistake(line.number, f'{reason} "{first.answer}"'))
    if not problems or len(mistakes) > settings["max_bad_share"] * len(lines):
        raise UserError(_too_many(settings, mistakes, len(lines)))
    return Rows(
        listed=tuple(problems.values()),
        problems=problems,
        read=len(lines),
        bad=dict(Counter(mistake.reason for mistake in mistakes)),
        repeated=len(lines) - len(mistakes) - len(problems),
        contradictions=tuple(contradictions),
    )


def _too_many(settings: Mapping[str, Any], mistakes: Sequence[Mistake], rows: int) -> str:
    path, share = settings["path"], settings["max_bad_share"]
    if not rows:
        return f"{path}: has no rows; a row is a question with its steps and its answer"
    return "\n".join(
        [
            *_named(path, mistakes),
            f"{len(mistakes):,} of {rows:,} rows cannot be used, and task.max_bad_share = {share:g}; mend "
            "them, or allow their share, and they are left out and counted",
        ]
    )


def _named(path: str, mistakes: Sequence[Mistake]) -> list[str]:
    return [f"{path}:{mistake.line}: {mistake.reason}{mistake.detail}" for mistake in mistakes[:_SHOWN]]
