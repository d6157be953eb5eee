"""Turns a row of a user's file into a problem: finds the columns, and says why a row cannot be used. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, Self

from showhow.errors import UserError, nearest
from showhow.tasks.base import Problem, Wording
from showhow.tasks.imported.file import Line

_EXPLANATIONS = ("steps", "explanation")
_LEVELS = ("short", "medium", "long")
_LINE_BREAK = re.compile(r"\r\n|\n|\r")

# A step is its text at each level, empty where that level does not show it.
_WORDING = Wording(short=lambda *texts: texts[0], medium=lambda *texts: texts[1], long=lambda *texts: texts[2])


class Mistake(NamedTuple):
    """Why a row cannot be used; `detail` is specific to this row."""

    line: int
    reason: str
    detail: str = ""


class _UnusableError(Exception):
    """Carries reason and detail of a Mistake."""


class Columns(NamedTuple):
    """The columns of a row's parts. explanation: None where each level has its own column, or the solution is before
    the `separator` in the answer's column."""

    question: str
    answer: str
    separator: str | None
    prefix: str
    explanation: str | None
    levels: dict[str, str]

    @classmethod
    def of(cls, settings: Mapping[str, Any], lines: Iterable[Line]) -> Self:
        """Return the columns that a task's settings name, or those with the usual names in the rows.

        Raises UserError naming the setting, the existing columns and the nearest."""
        there = list(dict.fromkeys(column for line in lines for column in line.values))
        listed = f"Columns there: {', '.join(there)}"
        for name, column in settings.items():
            if name.endswith("_column") and column is not None and there and column not in there:
                raise UserError(
                    f'{settings["path"]}: no row has a column "{column}".{nearest(column, there)} {listed}. '
                    f'Name the right one: task.{name} = "..."'
                )
        levels = {level: settings[f"{level}_column"] or level for level in _LEVELS}
        levels = {level: column for level, column in levels.items() if column in there}
        separator, explanation = settings["answer_separator"], settings["explanation_column"]
        if not (explanation or separator):
            explanation = next((name for name in _EXPLANATIONS if name in there), None)
            if there and not explanation and "long" not in levels:
                raise UserError(
                    f"{settings['path']}: no column holds a worked solution. {listed}. Name the one that does: "
                    'task.explanation_column = "...", or what stands between solution and answer in the answer\'s '
                    'column: task.answer_separator = "####"'
                )
        prefix = settings["answer_prefix"].strip()
        return cls(settings["question_column"], settings["answer_column"], separator, prefix, explanation, levels)


def problem_in(line: Line, columns: Columns) -> Problem | Mistake:
    """Return the problem in a row, with its texts unchanged, or why the row cannot be used."""
    if line.fault:
        return Mistake(line.number, line.fault, line.detail)
    try:
        return _problem(line.values, columns)
    except _UnusableError as error:
        return Mistake(line.number, *error.args)


def _problem(values: dict[str, Any], columns: Columns) -> Problem:
    question = _text(values, columns.question)
    if not question.strip():
        raise _UnusableError("the question is empty")
    answer, solution = _text(values, columns.answer), None
    if columns.separator:
        solution, found, answer = answer.rpartition(columns.separator)
        if not found:
            raise _UnusableError(f'"{columns.answer}" has no answer_separator "{columns.separator}"')
    answer = _checked_answer(answer.strip(), columns)
    if columns.explanation:
        solution = values.get(columns.explanation)
    texts = {level: _steps(values.get(column), column, columns) for level, column in columns.levels.items()}
    steps = texts["long"] if solution is None and "long" in texts else _steps(solution, columns.explanation, columns)
    shown = [texts.get(level) or _first(steps, level) for level in _LEVELS]
    return Problem(question, tuple(zip_longest(*shown, fillvalue="")), _WORDING, answer)


def _first(steps: Sequence[str], level: str) -> Sequence[str]:
    """Return the first third of the steps (short), two thirds (medium), rounded up, or all (long)."""
    return steps[: -(-len(steps) * (1 + _LEVELS.index(level)) // len(_LEVELS))]


def _checked_answer(answer: str, columns: Columns) -> str:
    if not answer:
        raise _UnusableError("the answer is empty")
    if _LINE_BREAK.search(answer):
        raise _UnusableError("the answer has several lines")
    if columns.prefix in answer:
        raise _UnusableError(f'the answer holds answer_prefix "{columns.prefix}"')
    return answer


def _steps(value: Any, column: str | None, columns: Columns) -> list[str]:
    """Return the lines of a text or of a list of texts that are not blank."""
    name = f'"{column or columns.answer}"'
    if not isinstance(value, str | list | tuple):
        raise _UnusableError(f"{name} is missing" if value is None else f"{name} is neither text nor a list of texts")
    parts = [value] if isinstance(value, str) else value
    lines = [line for part in parts for line in _LINE_BREAK.split(_plain(part, name)) if line.strip()]
    if not lines:
        raise _UnusableError(f"{name} has no step")
    for line in lines:
        if columns.prefix in line:
            raise _UnusableError(f'a step holds answer_prefix "{columns.prefix}"; choose another', f": {line[:60]!r}")
    return lines


def _text(values: dict[str, Any], column: str) -> str:
    if values.get(column) is None:
        raise _UnusableError(f'"{column}" is missing')
    return _plain(values[column], f'"{column}"')


def _plain(value: Any, name: str) -> str:
    """Return a text, or a number in its written form."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _UnusableError(f"{name} is neither text nor number")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _UnusableError(f"{name} holds half a character (a surrogate alone), which is no UTF-8 text") from None
    return text
