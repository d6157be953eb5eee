"""Which of two equally good arms needs fewer examples to solve the task. Pure.

A run that never solved it is censored at the examples it has seen. Two runs are ordered where the data order them:
one solved the task before the other did, or before the other ended. With equal budgets "never" is then later than any
run that solved it; with unequal ones some pairs stay unordered (Gehan, Biometrika 52 (1965) 203-223).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from showhow.evidence.claims.accuracy import ALPHA, FEWEST_SEEDS, MOST_SEEDS, POWER_QUANTILE, holm
from showhow.evidence.result import ArmRow, Comparison, SpeedComparison, SpeedVerdict

MOST_SPLITS = 20_000  # list all splits of the runs up to here (8 and 8); beyond, the normal limit is accurate


@dataclass(frozen=True)
class Times:
    """Per run: examples seen when it solved the task, or in total where it did not; and whether it did."""

    examples: tuple[int, ...]
    solved: tuple[bool, ...]


def times_of(row: ArmRow) -> Times:
    """Return when the compared runs of an arm solved the task."""
    until = row.examples_until_solved
    seen = tuple(end if time is None else time for time, end in zip(until, row.examples, strict=True))
    return Times(seen, tuple(time is not None for time in until))


def compare_speed(rows: Sequence[ArmRow], comparisons: Sequence[Comparison]) -> tuple[SpeedComparison, ...]:
    """Compare the pairs of arms of a setting that are the same in accuracy, have each solved the task at least once,
    and have runs that record when."""
    by_arm = {row.arm: row for row in rows}
    pairs = [(by_arm[found.first], by_arm[found.second]) for found in comparisons if found.verdict == "same"]
    pairs = [(a, b) for a, b in pairs if a.solved and b.solved and a.examples_until_solved and b.examples_until_solved]
    p_values = [rank_test(times_of(first), times_of(second)) for first, second in pairs]
    return tuple(
        _compared(pair, p_value, p_adjusted, len(pairs))
        for pair, p_value, p_adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    )


def rank_test(first: Times, second: Times) -> float:
    """Return the two-sided p of Gehan's rank test, exact (over all splits of the runs) where that is fast."""
    size, runs = len(first.examples), len(first.examples) + len(second.examples)
    earlier = _earlier(Times(first.examples + second.examples, first.solved + second.solved))
    scores = earlier.sum(axis=0) - earlier.sum(axis=1)  # runs before it less runs after it; they sum to 0
    if math.comb(runs, size) > MOST_SPLITS:
        return float(stats.mannwhitneyu(scores[:size], scores[size:], method="asymptotic").pvalue)
    splits = np.array(list(combinations(range(runs), size)))
    return float(np.mean(np.abs(scores[splits].sum(axis=1)) >= abs(scores[:size].sum())))


def share_earlier(first: Times, second: Times) -> float:
    """Return the share of pairs of runs in which the first is earlier; ties and unordered pairs count half."""
    size = len(first.examples)
    earlier = _earlier(Times(first.examples + second.examples, first.solved + second.solved))
    return float(0.5 + 0.5 * (earlier[:size, size:] - earlier[size:, :size].T).mean())


def _earlier(times: Times) -> NDArray[np.int64]:
    """Return 1 where the row's run is known to have solved the task before the column's, shape (runs, runs)."""
    examples, solved = np.array(times.examples), np.array(times.solved)
    before = examples[:, None] < examples[None, :]
    ended_then = (examples[:, None] == examples[None, :]) & ~solved[None, :]
    return np.asarray(solved[:, None] & (before | ended_then), dtype=np.int64)


def seeds_for_order(earlier: float, pairs: int) -> int | None:
    """Return the fewest seeds per arm that show the share `earlier` with 80% power; None above 100.

    Noether, Journal of the American Statistical Association 82 (1987) 645-647: for two groups of n,
    n = (z(1 - alpha/2) + z(0.8))^2 / (6 (earlier - 1/2)^2); and no fewer than n with 2 pairs / C(2n, n) < 5%.
    """
    if earlier == 0.5:
        return None
    quantile = float(stats.norm.isf(ALPHA / pairs / 2)) + POWER_QUANTILE
    by_power = math.ceil(quantile**2 / (6 * (earlier - 0.5) ** 2))
    by_ranks = next(n for n in range(2, MOST_SEEDS) if 2 * pairs / math.comb(2 * n, n) < ALPHA)
    needed = max(by_power, by_ranks)
    return needed if needed <= MOST_SEEDS else None


def _compared(pair: tuple[ArmRow, ArmRow], p_value: float, p_adjusted: float, pairs: int) -> SpeedComparison:
    first, second = pair
    seeds = min(len(first.seeds), len(second.seeds))
    earlier = share_earlier(times_of(first), times_of(second))
    verdict: SpeedVerdict = "unclear"
    if p_adjusted < ALPHA and seeds >= FEWEST_SEEDS:
        verdict = "faster" if earlier > 0.5 else "slower"
    needed = seeds_for_order(earlier, pairs) if verdict == "unclear" else None
    return SpeedComparison(
        first=first.arm,
        second=second.arm,
        setting=first.setting,
        p_value=p_value,
        p_adjusted=p_adjusted,
        verdict=verdict,
        seeds=seeds,
        seeds_needed=None if needed is None else max(needed, seeds + 1),
    )
