"""ListOps: evaluate nested lists of MIN, MAX, MED and SUM (modulo m). A right answer needs every inner result.

The task of Ballout et al. (arXiv 2402.07543), on expressions drawn as in Long Range Arena. The question and the target
without explanation are those of their released files, with the operators spelt MED and SUM throughout (the files also
have MEDIAN and SM); MED of an even count is the mean of the middle two, rounded down, as there. `wording.py` gives the
source of each wording. For `[MAX 4 [MED 2 7 ] ]` the first step is

| style   | short    | medium                                  | long                                                |
|---------|----------|-----------------------------------------|-----------------------------------------------------|
| paper   | `MED, 4` | `MED, sorted list, [2, 7], MEDIAN is 4` | a sentence: what to do, sorted list, middle, answer |
| symbols | `4`      | `MED 2 7`                               | `MED 2 7 > 2 7 = 4`                                 |
"""

import random
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from showhow.tasks.base import Problem, Task, TextFormat
from showhow.tasks.listops.drawing import drawn
from showhow.tasks.listops.expression import Expression, applications, written
from showhow.tasks.listops.odds import SHORTEST, Bounds, count_expressions, is_possible
from showhow.tasks.listops.reading import EXAMPLE, read
from showhow.tasks.listops.wording import WORDINGS, Style

_LAYOUT = TextFormat(step_separator="\n", answer_prefix="Final answer: ")


class ListOps(Task):
    """`[MAX 4 [MIN 2 7 ] ]` -> 4. A step per operator, inner ones first.

    `ListOps()` is the preset "listops-10", the setting of the authors' released files. Lengths are Long Range Arena's
    (2 per operator, 1 per number) and exclusive: min_length < length < max_length. `largest` bounds the drawn numbers;
    a typed question may contain larger ones, whose answers need not be among `answers`.
    """

    kind: Literal["listops"] = "listops"
    largest: Annotated[int, Field(ge=1, le=10_000)] = 9
    modulus: Annotated[int, Field(ge=2, le=10_000)] = 10
    min_length: Annotated[int, Field(ge=0)] = 20
    max_length: Annotated[int, Field(ge=5, le=2_000)] = 50
    max_depth: Annotated[int, Field(ge=2, le=20)] = 10
    max_arguments: Annotated[int, Field(ge=2, le=20)] = 10
    style: Style = "paper"

    example_question: ClassVar[str] = EXAMPLE
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "listops-10": {
            "largest": 9,
            "modulus": 10,
            "min_length": 20,
            "max_length": 50,
            "max_depth": 10,
            "max_arguments": 10,
        },
        "listops-30": {
            "largest": 29,
            "modulus": 10,  # the authors' one known example, 15 + 27 + 1 = 43 -> 3, is modulo 10 and not 30
            "min_length": 50,
            "max_length": 100,
            "max_depth": 10,
            "max_arguments": 10,
        },
    }

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        """Refuse bounds within which there is no expression."""
        got = f"min_length = {self.min_length} and max_length = {self.max_length}"
        if max(self.min_length + 1, SHORTEST) >= self.max_length:
            raise ValueError(
                f"got {got}, and no length lies between: the shortest expression has length {SHORTEST}, and both "
                "bounds are themselves left out; raise max_length"
            )
        if not is_possible(self._bounds):
            raise ValueError(
                f"got {got}, but with max_depth = {self.max_depth} and max_arguments = {self.max_arguments} no "
                "expression that could be drawn has such a length; lower min_length, move the two further apart, or "
                "raise max_depth or max_arguments"
            )
        return self

    @property
    def text_format(self) -> TextFormat:
        """One line per step, and the authors' last line `Final answer: 1`."""
        return _LAYOUT

    @property
    def _bounds(self) -> Bounds:
        return Bounds(self.min_length, self.max_length, self.max_depth, self.max_arguments)

    def draw(self, rng: random.Random) -> Problem:
        """Draw as Long Range Arena does (operator with probability 0.25, of uniform kind and number of arguments)."""
        return self._worked(drawn(rng, self._bounds, self.largest))

    def solve(self, question: str) -> Problem:
        """Read and evaluate a typed expression; the problem's question is its written form, with every parenthesis."""
        return self._worked(read(question))

    def _worked(self, expression: Expression) -> Problem:
        steps = applications(expression, self.modulus)
        return Problem(written(expression), tuple(steps), WORDINGS[self.style], str(steps[-1].value))

    @property
    def answers(self) -> tuple[str, ...]:
        """0 to the largest possible value, as text."""
        return tuple(map(str, range(max(self.largest, self.modulus - 1) + 1)))

    @property
    def largest_number(self) -> int:
        """The largest sum before the modulus: max_arguments times the largest answer."""
        return self.max_arguments * max(self.largest, self.modulus - 1)

    @property
    def distinct_questions(self) -> int | None:
        """How many expressions are within bounds; None above 10 ** 12, as with both presets."""
        count = count_expressions(self._bounds, self.largest)
        return int(count) if count <= 1e12 else None
