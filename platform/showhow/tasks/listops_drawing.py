"""Draws ListOps expressions as Long Range Arena does, but without drawing in vain.

The generator (google-research/long-range-arena, data/listops.py): a node above the greatest depth becomes an operator
with probability 0.25, its kind uniform over four, its number of arguments uniform over 2..max_arguments; else it is a
number, uniform over all. The length is 2 per operator (it and its `]`) plus 1 per number. Expressions are thrown away
until one has min_length < length < max_length: of lengths 50 to 100 that keeps 1 in 160, of bounds out of reach none,
ever. Here the probability of each length is worked out once per bounds (0.2 seconds for lengths up to 2,000), a
length is drawn, and then each node given the length it is to have: the same distribution, as a test checks.
"""

import random
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from showhow.tasks.listops_expression import OPERATORS, Expression, Operator

OPERATOR_SHARE = 0.25
SHORTEST = 4  # `[MAX 1 2 ]`
LEAST_PROBABILITY = 1e-200  # products of rarer events leave the range of floating point
LARGEST_COUNT = 1e100  # and so do products of larger counts

Lengths = npt.NDArray[np.float64]


class Bounds(NamedTuple):
    """What is drawn: min_length < length < max_length, nodes at depth 1 (the root) to max_depth, 2..max_arguments."""

    min_length: int
    max_length: int
    max_depth: int
    max_arguments: int


class Odds(NamedTuple):
    """Probabilities: of the root's lengths within bounds; of lengths of n nodes at a depth (rows[depth][n][length])."""

    root: list[float]
    rows: list[list[list[float]]]


@lru_cache(maxsize=8)
def odds(bounds: Bounds) -> Odds:
    """Work out the probability of every length below max_length."""
    per_count = OPERATOR_SHARE / (bounds.max_arguments - 1)
    root, rows = _by_length(bounds, deepest=1.0, number=1 - OPERATOR_SHARE, operator=per_count)
    return Odds(root.tolist(), [[], [], *([nodes.tolist() for nodes in row] for row in rows)])


def is_possible(bounds: Bounds) -> bool:
    """Tell whether any expression is within bounds (practically: with a probability of 1e-200 or more)."""
    return sum(odds(bounds).root) > LEAST_PROBABILITY


@lru_cache(maxsize=8)
def count_expressions(bounds: Bounds, largest: int) -> float:
    """Return how many expressions are within bounds; exact up to 2 ** 53, then rounded, and at most about 1e100."""
    numbers = float(largest + 1)
    root, _ = _by_length(bounds, deepest=numbers, number=numbers, operator=float(len(OPERATORS)))
    return float(root.sum())


def _by_length(bounds: Bounds, deepest: float, number: float, operator: float) -> tuple[Lengths, list[list[Lengths]]]:
    """Add up by length, from the greatest depth to the root, what weighs so much per number and per operator.

    Returns the weights of the root's lengths within bounds, and those of n nodes at depths 2, 3, ..., all of shape
    (max_length,).
    """
    node = np.zeros(bounds.max_length)
    node[1] = deepest
    rows: list[list[Lengths]] = []
    for _ in range(bounds.max_depth, 1, -1):
        row = [np.eye(1, bounds.max_length)[0], node]
        for _ in range(2, bounds.max_arguments + 1):
            row.append(np.minimum(np.convolve(row[-1], node)[: bounds.max_length], LARGEST_COUNT))
        rows.insert(0, row)
        node = np.zeros(bounds.max_length)
        node[2:] = operator * np.sum(row[2:], axis=0)[:-2]
        node[1] = number
    node[: max(bounds.min_length + 1, SHORTEST)] = 0.0
    return node, rows


def drawn(rng: random.Random, bounds: Bounds, largest: int) -> Expression:
    """Draw an expression within (possible) bounds, its numbers uniformly from 0..largest."""
    root, rows = odds(bounds)
    draw, numbers = rng.random, largest + 1
    expression: Expression = []
    unfinished: list[tuple[int, int]] = []  # per open operator: how many arguments are still to come, and their length
    length = _chosen(root, draw())
    while True:
        if length == 1:
            expression.append(int(draw() * numbers))
        else:
            per_count = [row[length - 2] for row in rows[len(unfinished) + 2][2:]]
            arguments = 2 + _chosen(per_count, draw())
            expression.append(Operator(OPERATORS[int(draw() * len(OPERATORS))], arguments))
            unfinished.append((arguments, length - 2))
        while unfinished and unfinished[-1][0] == 0:
            unfinished.pop()
        if not unfinished:
            return expression
        arguments, total = unfinished[-1]
        length = _first_length(rng, rows[len(unfinished) + 1], arguments, total)
        unfinished[-1] = (arguments - 1, total - length)


def _first_length(rng: random.Random, row: list[list[float]], arguments: int, total: int) -> int:
    """Draw the length of the first of some arguments, given their total length."""
    if arguments in (1, total):
        return total if arguments == 1 else 1
    node, others = row[1], row[arguments - 1]
    if rng.random() * row[arguments][total] < node[1] * others[total - 1]:
        return 1
    operators = map(mul, node[SHORTEST : total - arguments + 2], others[total - SHORTEST : arguments - 2 : -1])
    return SHORTEST + _chosen(operators, rng.random())


def _chosen(weights: Iterable[float], at: float) -> int:
    """Return the index that `at`, uniform in [0, 1), picks among some weights."""
    sums = list(accumulate(weights))
    return bisect_right(sums, at * sums[-1])
