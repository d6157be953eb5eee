"""ListOps expressions: what they are, how they are written, how they are worked out.

An expression is kept flat, in written order (an operator before its arguments), and every pass over it is a loop: no
depth of nesting can exhaust the stack. Drawing is in `listops_drawing.py`, reading in `listops_reading.py`.
"""

from typing import Literal, NamedTuple, get_args

OperatorName = Literal["MIN", "MAX", "MED", "SUM"]
OPERATORS: tuple[OperatorName, ...] = get_args(OperatorName)


class Operator(NamedTuple):
    """An operator and how many of the following values are its arguments."""

    name: OperatorName
    arguments: int


Expression = list[Operator | int]


class Application(NamedTuple):
    """One operator worked out: its numbers in written order, their sum before any modulus, the operator's value."""

    operator: OperatorName
    numbers: list[int]
    total: int
    value: int


def written(expression: Expression) -> str:
    """Write as in the files of Ballout et al.: binary parentheses, blanks between symbols, `[` glued to its
    operator."""
    words: list[str] = []
    missing: list[int] = []
    for symbol in expression:
        if isinstance(symbol, Operator):
            words.append("( " * (symbol.arguments + 1) + "[" + symbol.name)
            missing.append(symbol.arguments)
            continue
        words.append(str(symbol))
        while missing:
            words.append(")")
            missing[-1] -= 1
            if missing[-1]:
                break
            missing.pop()
            words.append("] )")
    return " ".join(words)


def applications(expression: Expression, modulus: int) -> list[Application]:
    """Work out every operator, inner ones first and from left to right; the last one is the root."""
    done: list[Application] = []
    unfinished: list[tuple[Operator, list[int]]] = []
    for symbol in expression:
        if isinstance(symbol, Operator):
            unfinished.append((symbol, []))
            continue
        value = symbol
        while unfinished:
            operator, numbers = unfinished[-1]
            numbers.append(value)
            if len(numbers) < operator.arguments:
                break
            unfinished.pop()
            value = _value(operator.name, numbers, modulus)
            done.append(Application(operator.name, numbers, sum(numbers), value))
    return done


def _value(operator: OperatorName, numbers: list[int], modulus: int) -> int:
    if operator == "SUM":
        return sum(numbers) % modulus
    if operator == "MED":
        return sum(middle(numbers)) // 2
    return min(numbers) if operator == "MIN" else max(numbers)


def middle(numbers: list[int]) -> tuple[int, int]:
    """Return the two numbers in the middle once sorted (of an odd count: the middle one, twice)."""
    ordered = sorted(numbers)
    return ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
