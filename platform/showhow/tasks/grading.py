"""Scores a reply: is the answer right, and is each explanation step right. Pure.

The answer is the complete text after the answer prefix: comparing only the last character, as the published script of
Ballout et al. does, confuses 13 and 3 once there are more than ten classes.
"""

from dataclasses import dataclass
from itertools import zip_longest

from showhow.tasks.base import TextFormat
from showhow.tasks.explain import Level


@dataclass(frozen=True)
class Grade:
    """One reply's scores. `steps_right` (share in [0, 1]) and `first_wrong_step` (1 is the first step; 0 when every
    step is right) are None where the level has no steps to check."""

    answer_right: bool
    steps_right: float | None = None
    first_wrong_step: int | None = None

    @property
    def right_from_wrong_steps(self) -> bool | None:
        """True when the answer is right though a step is wrong; None where there are no steps."""
        return None if self.first_wrong_step is None else self.answer_right and self.first_wrong_step > 0


def read_answer(reply: str, level: Level, layout: TextFormat) -> str | None:
    """Return the answer in a reply: the reply itself at level none, else the text after the last prefix (None: no
    prefix)."""
    if level is Level.NONE:
        return reply.strip()
    _, prefix, answer = reply.rpartition(layout.answer_prefix.strip())
    return answer.strip() if prefix else None


def form_of(target: str, level: Level, layout: TextFormat) -> Level:
    """Return the level by which replies are read that should be like a target: `none` where it is a bare answer."""
    return Level.NONE if read_answer(target, level, layout) is None else level


def grade(reply: str, target: str, level: Level, layout: TextFormat) -> Grade:
    """Compare a reply with its target at `level`.

    The worked solution of these tasks is unique, so a step in another place or with another text is wrong. A missing
    step is wrong, and so is each extra step.
    """
    answer = read_answer(reply, level, layout)
    right = answer is not None and answer == read_answer(target, level, layout)
    if not level.has_steps:
        return Grade(right)
    matches = [written == expected for written, expected in paired_steps(reply, target, layout)]
    if not matches:
        return Grade(right)
    first_wrong = 0 if all(matches) else matches.index(False) + 1
    return Grade(right, sum(matches) / len(matches), first_wrong)


def paired_steps(reply: str, target: str, layout: TextFormat) -> list[tuple[str | None, str | None]]:
    """Return pairs of a reply's step and the target's step in the same place; None where one of them has no more."""
    return list(zip_longest(_steps(reply, layout), _steps(target, layout)))


def _steps(text: str, layout: TextFormat) -> list[str]:
    explanation, prefix, _ = text.rpartition(layout.answer_prefix.strip())
    body = (explanation if prefix else text).removesuffix(layout.step_separator)
    return [step.strip() for step in body.split(layout.step_separator)] if body.strip() else []
