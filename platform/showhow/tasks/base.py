"""The base class of tasks: a family of problems, each with its worked steps.

A new task is one file with a subclass of `Task` and one line in the catalogue (`showhow.tasks`). `explain.py` decides
how much of the steps is shown, and `grading.py` scores replies.
"""

import random
import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

from showhow.errors import UserError, nearest

MOST_DIGITS = 100  # of a number that a person types; Python refuses to convert numbers from 4,300 digits on


Step = tuple[Any, ...]  # the values of one line of a worked solution; a `Wording` turns them into text


class Wording(NamedTuple):
    """The text of a step at each level, each with more detail than the one before: functions of the step's values. A
    level that leaves a step out returns an empty text.

    They are functions, so that only the text of the requested level is made."""

    short: Callable[..., str]
    medium: Callable[..., str]
    long: Callable[..., str]


class Problem(NamedTuple):
    """One drawn instance: the question as the model reads it, the worked steps in order and their wording, the answer
    as text."""

    question: str
    steps: tuple[Step, ...]
    wording: Wording
    answer: str


@dataclass(frozen=True)
class TextFormat:
    """The format of steps and answer in a target: `step SEP step SEP PREFIX answer`."""

    step_separator: str
    answer_prefix: str


class Task(BaseModel):
    """A family of problems with worked solutions; its fields are the parameters a study may set.

    Subclasses add a literal `kind`, and give `text_format`, `draw`, `solve`, `answers`, `largest_number` and
    `distinct_questions`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    example_question: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any, info: ValidationInfo) -> Any:
        """Fill in the parameters of a named preset; parameters given explicitly take precedence."""
        if (
            isinstance(values, dict) and info.mode == "json"
        ):  # the values are parsed already, so lists are not accepted as tuples
            fields = {name for name, field in cls.model_fields.items() if "tuple" in str(field.annotation)}
            values = {name: _tuples(value) if name in fields else value for name, value in values.items()}
        if not isinstance(values, dict) or "preset" not in values:
            return values
        name = values["preset"]
        if not isinstance(name, str) or name not in cls.presets:
            known = ", ".join(f'"{preset}"' for preset in cls.presets) or "none"
            raise ValueError(
                f'preset = "{name}" is not known; presets of this task: {known}.{nearest(str(name), cls.presets)}'
            )
        return {**cls.presets[name], **{key: value for key, value in values.items() if key != "preset"}}

    @property
    @abstractmethod
    def text_format(self) -> TextFormat:
        """The format of a target; no step may contain the step separator or the answer prefix."""

    @abstractmethod
    def draw(self, rng: random.Random) -> Problem:
        """Draw one problem; all its randomness comes from `rng`."""

    @abstractmethod
    def solve(self, question: str) -> Problem:
        """Solve a question that a person typed. Raises UserError with the position of the first fault."""

    @property
    @abstractmethod
    def answers(self) -> tuple[str, ...]:
        """Every answer the task can have."""

    @property
    def chance(self) -> float:
        """How often guessing among the answers is right."""
        return 1 / len(self.answers)

    @property
    @abstractmethod
    def largest_number(self) -> int:
        """The largest number that a question, a step or an answer of this task can contain."""

    @property
    def listed(self) -> tuple[Problem, ...] | None:
        """All problems of a task that is a list of them, each question once; None for a task that draws them."""
        return None

    @property
    def identity(self) -> str:
        """What identifies the task, as JSON: its kind and parameters, without the path of a file."""
        return self.model_dump_json(exclude={"path"})

    @property
    @abstractmethod
    def distinct_questions(self) -> int | None:
        """How many different questions there are; None when there are more than any dataset could contain."""

    def changed(self, changes: dict[str, Any]) -> Self:
        """Return the task with some parameters changed (and checked again), for an out-of-distribution split.

        A preset among the changes means its parameters.
        """
        preset = self.presets.get(str(changes.get("preset")), {})
        return type(self).model_validate({**self.model_dump(), **preset, **changes})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def unreadable(kind: str, question: str, position: int, expected: str, advice: str) -> UserError:
    """Return the error for a typed question with a fault at `position` (1: the first character)."""
    found = re.match(r"\w{1,20}|.", question[position - 1 :], re.DOTALL)
    what = f'found "{found[0]}"' if found else "the question ends"
    start, stop = max(0, position - 40), position + 40
    excerpt = ("..." if start else "") + question[start:stop] + ("..." if stop < len(question) else "")
    return UserError(f'{kind} cannot read "{excerpt}": at position {position} {what}, expected {expected}.\n{advice}')
