"""ListOps expressions: drawing, writing, working out. Reading is in `listops_reading.py`, wording in
`listops_wording.py`.

An expression is kept flat, in written order (an operator before its arguments), and every pass over it is a loop: no
depth of nesting can exhaust the interpreter's stack. Its length, as in Long Range Arena's generator (google-research/
long-range-arena, data/listops.py), is 2 per operator (it and its `]`) plus 1 per number; parentheses do not count.
"""

import random
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from showhow.seeds import rng_for

OperatorName = Literal["MIN", "MAX", "MED", "SUM"]
OPERATORS: tuple[OperatorName, ...] = get_args(OperatorName)
OPERATOR_SHARE = 0.25  # of the nodes that may become an operator; the value in Long Range Arena
TRIALS, TRIALS_KEPT = 20_000, 20  # bounds are practical where 1 in 1,000 grown expressions is kept


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


class Bounds(NamedTuple):
    """What is drawn: min_length < length < max_length, nodes at depth 1 (the root) to max_depth, 2..max_arguments."""

    min_length: int
    max_length: int
    max_depth: int
    max_arguments: int


def longest(bounds: Bounds) -> int:
    """Return the length of the longest expression that depth and arguments allow, counted up to max_length."""
    length = 1
    for _ in range(bounds.max_depth - 1):
        length = min(2 + bounds.max_arguments * length, bounds.max_length)
    return length


@lru_cache(maxsize=256)
def is_practical(bounds: Bounds) -> bool:
    """Tell whether drawing finds lengths within the bounds often enough, by trying: a millisecond where it does."""
    rng, kept = rng_for("listops", "is_practical"), 0
    for _ in range(TRIALS):
        kept += _grown(rng, bounds) is not None
        if kept == TRIALS_KEPT:
            return True
    return False


def drawn(rng: random.Random, bounds: Bounds, largest: int) -> Expression:
    """Draw as Long Range Arena does, again until the length is within (practical) bounds; numbers are 0..largest."""
    while (counts := _grown(rng, bounds)) is None:
        pass
    draw = rng.random
    return [Operator(OPERATORS[int(draw() * 4)], n) if n else int(draw() * (largest + 1)) for n in counts]


def _grown(rng: random.Random, bounds: Bounds) -> list[int] | None:
    """Grow a tree; return the arguments per node (0: a number), or None when its length is out of bounds."""
    min_length, max_length, max_depth, max_arguments = bounds
    draw, choices = rng.random, max_arguments - 1
    counts: list[int] = []
    missing: list[int] = []  # arguments still to come, per unfinished operator
    length = 1  # what the tree comes to if no further node becomes an operator
    while missing or not counts:
        if not missing or (len(missing) + 1 < max_depth and draw() <= OPERATOR_SHARE):
            arguments = 2 + int(draw() * choices)
            length += arguments + 1
            if length >= max_length:
                return None
            counts.append(arguments)
            missing.append(arguments)
            continue
        counts.append(0)
        missing[-1] -= 1
        while missing and not missing[-1]:
            missing.pop()
            if missing:
                missing[-1] -= 1
    return counts if length > min_length else None


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
