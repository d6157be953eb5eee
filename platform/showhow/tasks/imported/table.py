"""What becomes of the rows of a user's file: problems, rows that cannot be used, and rows that repeat a question. Pure.

Which column holds what, and what a single row must hold, is the business of `imported_rows.py`.
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
    """What became of a file's rows: the problems in order and by question, and how many rows were read, were unusable
    (by reason) and repeated a question. contradictions: those of them that answer it otherwise than the first, which
    is kept."""

    listed: tuple[Problem, ...]
    problems: dict[str, Problem]
    read: int
    bad: dict[str, int]
    repeated: int
    contradictions: tuple[Mistake, ...]

    def contradictions_in(self, path: str) -> str | None:
        """Name the first rows of a file that contradict earlier ones; None where there are none."""
        if not self.contradictions:
            return None
        count = len(self.contradictions)
        rows = "1 row repeats a question" if count == 1 else f"{count:,} rows repeat a question"
        told = f"{path}: {rows} with another answer; the first answer is kept"
        return "\n".join([told, *_named(path, self.contradictions)])


def rows_in(lines: Sequence[Line], settings: Mapping[str, Any]) -> Rows:
    """Sort a file's rows out by a task's settings. Raises UserError when too many of them cannot be used."""
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
        kept = problems.setdefault(problem.question, problem)
        first = first_line.setdefault(problem.question, line.number)
        if kept.answer != problem.answer:
            told = f'has the answer "{problem.answer}", and the same question in line {first} has "{kept.answer}"'
            contradictions.append(Mistake(line.number, told))
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
