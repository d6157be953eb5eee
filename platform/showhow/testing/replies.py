"""The replies and scores of a model in memory: drawn by hashing instead of computed."""

from collections.abc import Iterable

from showhow.errors import TrialError
from showhow.methods.row import Row
from showhow.seeds import seed_for
from showhow.tasks.base import TextFormat
from showhow.tasks.explain import Level
from showhow.tasks.grading import form_of, grade


def share(*key: str | int) -> float:
    """Return a number between 0 and 1 for a key."""
    return seed_for(*key) / 2**63


def wrong(row: Row, answers: Iterable[str]) -> str:
    """Return the row's target with another of the task's answers."""
    other = next((answer for answer in answers if answer != row.answer), row.answer + "?")
    return row.target.removesuffix(row.answer) + other


def graded(row: Row, level: Level, layout: TextFormat) -> Row:
    """Return a row with the columns `right` and, where its target has steps, `steps_right`. Raises TrialError where it
    has no reply."""
    reply = row.columns.get("reply")
    if not isinstance(reply, str):
        raise TrialError(f'the row "{row.question}" has no reply to grade')
    found = grade(reply, row.target, form_of(row.target, level, layout), layout)
    steps = {} if found.steps_right is None else {"steps_right": found.steps_right}
    return row.with_(right=found.answer_right, **steps)
