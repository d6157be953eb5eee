"""The probabilities and numbers of ListOps expressions of each length, used by `drawing.py`.

The generator of Long Range Arena (google-research/long-range-arena, data/listops.py): a node above the greatest depth
becomes an operator with probability 0.25, its kind uniform over four, its number of arguments uniform over
2..max_arguments; else it is a number. The length is 2 per operator (it and its `]`) plus 1 per number. Expressions are
rejected until one has min_length < length < max_length.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from showhow.tasks.listops.expression import OPERATORS

if TYPE_CHECKING:
    import numpy as np  # loads for 60 ms, and only ListOps needs it
    import numpy.typing as npt

OPERATOR_SHARE = 0.25
SHORTEST = 4  # `[MAX 1 2 ]`
LEAST_PROBABILITY = 1e-200  # products of rarer events leave the range of floating point
LARGEST_COUNT = 1e100  # and so do products of larger counts

Lengths: TypeAlias = "npt.NDArray[np.float64]"


class Bounds(NamedTuple):
    """What is drawn: min_length < length < max_length, nodes at depth 1 (the root) to max_depth, 2..max_arguments."""

    min_length: int
    max_length: int
    max_depth: int
    max_arguments: int


class Row(NamedTuple):
    """The weights of adjacent nodes at one depth: of n nodes by total length (nodes[n][length]), of those that begin
    with an operator, and of a single number."""

    nodes: list[Lengths]
    operator_first: list[Lengths]
    number: float


class Weights(NamedTuple):
    """The weights of the root by its length (0 out of bounds), and the rows of nodes by their depth, from 2 on."""

    root: Lengths
    rows: dict[int, Row]


@lru_cache(maxsize=8)
def odds(bounds: Bounds) -> Weights:
    """Return the probability of every length below max_length (takes 0.05 seconds for lengths up to 2,000)."""
    per_count = OPERATOR_SHARE / (bounds.max_arguments - 1)
    return _by_length(bounds, deepest=1.0, number=1 - OPERATOR_SHARE, operator=per_count)


def is_possible(bounds: Bounds) -> bool:
    """Return whether any expression is within bounds (in practice: with a probability of 1e-200 or more)."""
    return bool(odds(bounds).root.sum() > LEAST_PROBABILITY)


@lru_cache(maxsize=8)
def count_expressions(bounds: Bounds, largest: int) -> float:
    """Return how many expressions are within bounds; exact up to 2 ** 53, then rounded, and at most about 1e100."""
    numbers = float(largest + 1)
    return float(_by_length(bounds, deepest=numbers, number=numbers, operator=float(len(OPERATORS))).root.sum())


def _by_length(bounds: Bounds, deepest: float, number: float, operator: float) -> Weights:
    """Sum the weights by length, from the greatest depth to the root. number: the weight of a number (deepest: at the
    greatest depth); operator: of an operator with one number of arguments."""
    import numpy as np

    operators = np.zeros(bounds.max_length)  # there are none at the greatest depth
    rows: dict[int, Row] = {}
    for depth in range(bounds.max_depth, 1, -1):
        rows[depth] = _row(operators, number if rows else deepest, bounds.max_arguments)
        operators = np.zeros(bounds.max_length)
        operators[2:] = operator * np.sum(rows[depth].nodes[2:], axis=0)[:-2]
    operators[: max(bounds.min_length + 1, SHORTEST)] = 0.0
    return Weights(operators, rows)


def _row(operators: Lengths, number: float, max_arguments: int) -> Row:
    import numpy as np

    nodes, operator_first = [np.eye(1, len(operators))[0]], [np.zeros(len(operators))]
    for _ in range(max_arguments):
        operator_first.append(np.convolve(nodes[-1], operators)[: len(operators)])
        number_first = np.concatenate([[0.0], number * nodes[-1][:-1]])
        nodes.append(np.minimum(operator_first[-1] + number_first, LARGEST_COUNT))
    return Row(nodes, operator_first, number)
