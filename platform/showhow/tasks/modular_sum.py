"""Modular sum: add up some numbers modulo m. Without explanation a small model cannot leave chance.

Ballout et al. (arXiv 2402.07543) report the task as unlearnable from answers alone; their exact definition is not
public. Here: `terms` numbers drawn uniformly from 0..below-1, a worked step per addition, the running sum always taken
modulo m. The wordings are ours. The choice of wording can matter more than its length, so it is a parameter (`style`):

| style    | short | medium  | long                            | remark                                              |
|----------|-------|---------|---------------------------------|-----------------------------------------------------|
| equation | `t`   | `s+x`   | `s+x=t`                         | medium's results stand in the next step             |
| operand  | `t`   | `x=t`   | `s+x=t`                         | medium hides the running sum it needs two tokens away |
| sentence | `t`   | `add x get t` | `s plus x is r which leaves t` | words; long also shows r                        |

s: the running sum so far, x: the next number, r: their sum, t: the new running sum, r modulo m.
"""

import random
import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from showhow.errors import UserError
from showhow.tasks.base import MOST_DIGITS, Problem, Task, TextFormat, Wording, unreadable

Style = Literal["equation", "operand", "sentence"]


# A step is (s, x, r, t).
_WORDINGS: dict[Style, Wording] = {
    "equation": Wording(short="{3}".format, medium="{0}+{1}".format, long="{0}+{1}={3}".format),
    "operand": Wording(short="{3}".format, medium="{1}={3}".format, long="{0}+{1}={3}".format),
    "sentence": Wording(
        short="{3}".format, medium="add {1} get {3}".format, long="{0} plus {1} is {2} which leaves {3}".format
    ),
}
_WORDS = TextFormat(step_separator=" ", answer_prefix="answer ")
_LINES = TextFormat(step_separator="\n", answer_prefix="answer ")


class ModularSum(Task):
    """`3+9+4=` -> 6 (modulo 10). Steps: `3+9=2 2+4=6`."""

    kind: Literal["modular_sum"] = "modular_sum"
    terms: Annotated[int, Field(ge=2, le=1000)] = 8
    below: Annotated[int, Field(ge=2, le=10_000)] = 10
    modulus: Annotated[int, Field(ge=2, le=10_000)] = 10
    style: Style = "equation"

    example_question: ClassVar[str] = "3+9+4="

    @property
    def text_format(self) -> TextFormat:
        """Steps on one line; sentences, which contain blanks, on a line each."""
        return _LINES if self.style == "sentence" else _WORDS

    def draw(self, rng: random.Random) -> Problem:
        """Draw `terms` numbers independently and uniformly from 0..below-1."""
        draw, below = rng.random, self.below
        return self._worked([int(draw() * below) for _ in range(self.terms)])

    def solve(self, question: str) -> Problem:
        """Read `3+9+4=` (blanks and the final `=` may be left out); any number of terms from two on."""
        numbers: list[int] = []
        position, expected = 0, "a number"
        for match in re.finditer(r"\s*(?:(\d+)|([+=])|(\S))", question):
            number, sign, _ = match.groups()
            position = match.start(match.lastindex or 0) + 1
            if number is not None and len(number) > MOST_DIGITS:
                raise _fault(question, position, f"a number of at most {MOST_DIGITS} digits")
            if expected == "a number" and number is not None and number.isascii():
                numbers.append(int(number))
                expected = "`+` or `=`"
            elif expected == "`+` or `=`" and sign is not None:
                expected = "a number" if sign == "+" else "the end"
            else:
                raise _fault(question, position, expected)
        if expected == "a number" or len(numbers) < 2:
            raise _fault(question, len(question) + 1, "`+` and another number" if expected != "a number" else expected)
        return self._worked(numbers)

    def _worked(self, numbers: list[int]) -> Problem:
        modulus, running = self.modulus, numbers[0] % self.modulus
        steps = []
        for number in numbers[1:]:
            total = running + number
            left = total % modulus
            steps.append((running, number, total, left))
            running = left
        return Problem("+".join(map(str, numbers)) + "=", tuple(steps), _WORDINGS[self.style], str(running))

    @property
    def answers(self) -> tuple[str, ...]:
        """0..modulus-1, as text."""
        return tuple(map(str, range(self.modulus)))

    @property
    def largest_number(self) -> int:
        """The largest operand, running sum, or (in the sentence style) raw sum."""
        return self.below + self.modulus - 2

    @property
    def distinct_questions(self) -> int:
        """below ** terms."""
        return int(self.below**self.terms)


def _fault(question: str, position: int, expected: str) -> UserError:
    advice = "Write numbers from 0 on with + between them, such as 3+9+4="
    return unreadable("modular_sum", question, position, expected, advice)
