"""ListOps expressions: their representation, written form and evaluation.

An expression is a flat list in written order, and every pass over it is a loop, so no depth of nesting can exhaust the
stack. Expressions are drawn in `drawing.py` and read in `reading.py`.
"""

from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple, get_args

OperatorName = Literal["MIN", "MAX", "MED", "SUM"]
OPERATORS: tuple[OperatorName, ...] = get_args(OperatorName)
CLOSE: Literal["]"] = "]"


class Operator(NamedTuple):
    """An operator and how many values up to its `CLOSE` are its arguments."""

    name: OperatorName
    arguments: int


Symbol = Operator | int | Literal["]"]
Expression = list[Symbol]


class Application(NamedTuple):
    """One evaluated operator: its numbers in written order, their sum before the modulus, the operator's value."""

    operator: OperatorName
    numbers: list[int]
    total: int
    value: int


def written(expression: Expression) -> str:
    """Return the form of the files of Ballout et al.: binary parentheses, blanks between symbols, `[` joined to its
    operator."""
    return " ".join(map(_word, expression)).removesuffix(" )")


@cache  # a dataset has few more different symbols than numbers
def _word(symbol: Symbol) -> str:
    """Return a symbol with the parentheses around it: one closes after each argument and after each `]` (but the root
    is not an argument)."""
    if isinstance(symbol, int):
        return f"{symbol} )"
    if symbol == CLOSE:
        return "] ) )"
    return "( " * (symbol.arguments + 1) + "[" + symbol.name


def applications(expression: Expression, modulus: int) -> list[Application]:
    """Evaluate every operator, inner ones first and from left to right; the last one is the root."""
    done: list[Application] = []
    unfinished: list[tuple[OperatorName, list[int]]] = []
    numbers: list[int] = []
    for symbol in expression:
        if isinstance(symbol, int):
            numbers.append(symbol)
        elif symbol == CLOSE:
            operator, outer = unfinished.pop()
            total = sum(numbers)
            value = total % modulus if operator == "SUM" else _VALUES[operator](numbers)
            done.append(Application(operator, numbers, total, value))
            outer.append(value)
            numbers = outer
        else:
            unfinished.append((symbol[0], numbers))
            numbers = []
    return done


def middle(numbers: list[int]) -> tuple[int, int]:
    """Return the two numbers in the middle once sorted (of an odd count: the middle one, twice)."""
    ordered = sorted(numbers)
    return ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]


_VALUES: dict[OperatorName, Callable[[list[int]], int]] = {
    "MIN": min, "MAX": max, "MED": lambda numbers: sum(middle(numbers)) // 2,
}  # fmt: skip
