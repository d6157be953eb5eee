"""Modular sum: add up some numbers modulo m. Without explanation a small model cannot leave chance.

Ballout et al. (arXiv 2402.07543) report the task as unlearnable from answers alone; their exact definition is not
public. Here: `terms` numbers drawn uniformly from 0..below-1, a worked step per addition, the running sum always taken
modulo m. The wordings are ours, and which wording it is can matter more than how long it is, so it is a parameter
(`style`):

| style    | short | medium  | long                            | remark                                              |
|----------|-------|---------|---------------------------------|-----------------------------------------------------|
| equation | `t`   | `s+x`   | `s+x=t`                         | medium's results stand in the next step             |
| operand  | `t`   | `x=t`   | `s+x=t`                         | medium hides the running sum it needs two tokens away |
| sentence | `t`   | `add x get t` | `s plus x is r which leaves t` | words; long also shows the raw sum r            |

s: the running sum so far, x: the next number, t: the new running sum.
"""

import random
import re
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from showhow.errors import UserError
from showhow.tasks.base import MOST_DIGITS, Problem, Step, Task, TextFormat, unreadable

Style = Literal["equation", "operand", "sentence"]


def _equation(s: int, x: int, t: int) -> Step:
    return Step(short=f"{t}", medium=f"{s}+{x}", long=f"{s}+{x}={t}")


def _operand(s: int, x: int, t: int) -> Step:
    return Step(short=f"{t}", medium=f"{x}={t}", long=f"{s}+{x}={t}")


def _sentence(s: int, x: int, t: int) -> Step:
    return Step(short=f"{t}", medium=f"add {x} get {t}", long=f"{s} plus {x} is {s + x} which leaves {t}")


_STYLES: dict[Style, Callable[[int, int, int], Step]] = {
    "equation": _equation,
    "operand": _operand,
    "sentence": _sentence,
}


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
        """Steps on one line; sentences, which hold blanks themselves, on a line each."""
        return TextFormat(step_separator="\n" if self.style == "sentence" else " ", answer_prefix="answer ")

    def draw(self, rng: random.Random) -> Problem:
        """Draw `terms` numbers independently and uniformly from 0..below-1."""
        return self._worked([rng.randrange(self.below) for _ in range(self.terms)])

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
        wording = _STYLES[self.style]
        running = numbers[0] % self.modulus
        steps = []
        for number in numbers[1:]:
            total = (running + number) % self.modulus
            steps.append(wording(running, number, total))
            running = total
        return Problem("+".join(map(str, numbers)) + "=", tuple(steps), str(running))

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
