"""Draws ListOps expressions with the distribution of Long Range Arena, but without rejecting any.

Its generator (see `odds.py`) rejects expressions until one has a length within bounds: for lengths 50 to 100 it accepts
1 in 160, and with impossible bounds it never ends. Here the length is drawn first, and then each operator given its
length: the distribution is the same, as a test checks.
"""

import random
from array import array
from bisect import bisect_right as bisect
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from showhow.tasks.listops.expression import CLOSE, OPERATORS, Expression, Operator
from showhow.tasks.listops.odds import SHORTEST, Bounds, odds

if TYPE_CHECKING:
    import numpy.typing as npt

# Cumulative probabilities: bisection with a number uniform in [0, 1) draws an index.
Totals: TypeAlias = "array[float]"
MOST_CACHED = 8192  # in each cache; for lengths up to 100 less than 2 MiB, up to 2,000 at most 128 MiB


def drawn(rng: random.Random, bounds: Bounds, largest: int) -> Expression:
    """Draw an expression within (possible) bounds, its numbers uniformly from 0..largest."""
    draw, numbers = rng.random, largest + 1
    expression: Expression = []
    unfinished: list[tuple[int, int]] = []  # per open operator: how many arguments are still to come, and their length
    length, depth = bisect(_root_lengths(bounds), draw()), 2
    while True:
        total = length - 2
        arguments = bisect(_argument_counts(bounds, depth, total), draw())
        expression.append(Operator(OPERATORS[int(draw() * len(OPERATORS))], arguments))
        while True:
            leading = bisect(_leading_numbers(bounds, depth, arguments, total), draw())
            for _ in range(leading):
                expression.append(int(draw() * numbers))
            if leading < arguments:
                break
            expression.append(CLOSE)
            if not unfinished:
                return expression
            arguments, total = unfinished.pop()
            depth -= 1
        length = bisect(_operator_lengths(bounds, depth, arguments - leading, total - leading), draw())
        unfinished.append((arguments - leading - 1, total - leading - length))
        depth += 1


@lru_cache(maxsize=8)
def _root_lengths(bounds: Bounds) -> Totals:
    return _totals(odds(bounds).root)


# About the arguments of an operator at some depth, given their total length:


@lru_cache(maxsize=MOST_CACHED)
def _argument_counts(bounds: Bounds, depth: int, total: int) -> Totals:
    """How many there are."""
    return _totals([0.0, 0.0, *(nodes[total] for nodes in odds(bounds).rows[depth].nodes[2:])])


@lru_cache(maxsize=MOST_CACHED)
def _leading_numbers(bounds: Bounds, depth: int, arguments: int, total: int) -> Totals:
    """How many numbers come before the first operator."""
    row = odds(bounds).rows[depth]
    weights = [row.number**n * row.operator_first[arguments - n][total - n] for n in range(arguments)]
    return _totals([*weights, row.number**arguments if total == arguments else 0.0])


@lru_cache(maxsize=MOST_CACHED)
def _operator_lengths(bounds: Bounds, depth: int, arguments: int, total: int) -> Totals:
    """How long the first one is, given that it is an operator."""
    nodes = odds(bounds).rows[depth].nodes
    weights = nodes[1][: total + 1] * nodes[arguments - 1][total::-1]
    weights[:SHORTEST] = 0.0
    return _totals(weights)


def _totals(weights: "npt.ArrayLike") -> Totals:
    import numpy as np  # loads for 60 ms

    totals = np.cumsum(weights)
    return array("d", (totals / totals[-1]).tobytes())
