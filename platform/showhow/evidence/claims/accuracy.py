"""When a difference between two arms may be claimed, and how many seeds would settle an open one. Pure.

Runs learn or they do not, so three seeds that agree say little about the fourth: their variance is no estimate. A
claim of "better" therefore needs all of these: at least three seeds on both sides; an interval of the difference
without 0; Welch's test over seeds, Holm-adjusted over all pairs, below 5%; and, where the arms differ in how many
runs learned, an exact test on those counts. Two arms are the same where the interval of their difference lies within
the margin. All else is unclear.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from showhow.evidence.result import Estimate, Verdict

ALPHA = 0.05
FEWEST_SEEDS = 3
MOST_SEEDS = 100
POWER_QUANTILE = 0.8416  # normal quantile of 80% power
ENDS_SHARE = 0.7  # of a set's error rate, spent on its first arm against its last
MOST_CLOSED = 12  # arms; closed testing tests every set of them; beyond, Holm's adjustment is used
EXACT_RUNS = 100  # with more runs the chi-squared limit replaces the exact test

Pair = tuple[str, str]


def variance_of_seeds(accuracies: Sequence[float], questions: int) -> float:
    """Return the variance between seeds, not below the noise of the questions.

    The floor is p(1-p)/questions at p = (right + 1) / (questions + 2), Laplace's estimate, which is positive also
    where every answer is right; so three seeds that agree by luck do not make a difference certain.
    """
    share = (float(np.mean(accuracies)) * questions + 1) / (questions + 2)
    between = float(np.var(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return max(between, share * (1 - share) / questions)


def welch(difference: float, variances: tuple[float, float], seeds: tuple[int, int]) -> float | None:
    """Return the two-sided p of Welch's t test (Biometrika 34 (1947) 28-35); None below two seeds."""
    if min(seeds) < 2:
        return None
    parts = [variance / count for variance, count in zip(variances, seeds, strict=True)]
    freedom = sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, seeds, strict=True))
    return float(2 * stats.t.sf(abs(difference) / math.sqrt(sum(parts)), freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values, in given order, adjusted for their number.

    Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    reached = 0.0
    for rank, index in enumerate(order):
        reached = max(reached, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = reached
    return adjusted


@lru_cache(maxsize=4096)
def learned_equally_often(counts: tuple[tuple[int, int], ...]) -> float:
    """Return the exact p that arms with the given (learned, runs) have one probability of learning.

    The statistic is Pearson's chi-squared; the unknown probability is the worst case over (0, 1). For two arms this
    is Barnard's test (Biometrika 34 (1947) 123-138): 3 of 3 against 0 of 3 has p = 1/32. Tables are not listed but
    counted by (sum of learned, sum of learned^2 / runs), which determine the statistic.
    """
    runs = sum(size for _, size in counts)
    learned = sum(count for count, _ in counts)
    if learned in (0, runs):
        return 1.0
    if runs > EXACT_RUNS:
        table = np.array([[count, size - count] for count, size in counts])
        return float(stats.chi2_contingency(table, correction=False).pvalue)
    scale = math.lcm(*(size for _, size in counts))
    tables = _count_tables(tuple(size for _, size in counts), scale)
    squares = sum(count * count * (scale // size) for count, size in counts)
    totals = np.arange(runs + 1)[:, None]
    spread = np.arange(tables.shape[1])[None, :] / scale - totals**2 / runs
    statistic = spread / np.maximum(totals * (runs - totals), 1)
    as_extreme = statistic >= statistic[learned, squares] - 1e-12
    ways = np.where(as_extreme, tables, 0.0).sum(axis=1)
    probability = np.linspace(0.005, 0.995, 199)[:, None]
    chances = (ways * probability**totals.T * (1 - probability) ** (runs - totals.T)).sum(axis=1)
    return float(min(1.0, chances.max()))


@lru_cache(maxsize=256)
def _count_tables(sizes: tuple[int, ...], scale: int) -> NDArray[np.float64]:
    """Return how many outcomes of all runs have a given (sum of learned, scale * sum of learned^2 / runs)."""
    tables = np.ones((1, 1))
    for size in sizes:
        unit = scale // size
        grown = np.zeros((tables.shape[0] + size, tables.shape[1] + size * size * unit))
        for count in range(size + 1):
            down, right = count, count * count * unit
            grown[down : down + tables.shape[0], right : right + tables.shape[1]] += math.comb(size, count) * tables
        tables = grown
    return tables


def closed_learned(counts: Mapping[str, tuple[int, int]]) -> dict[Pair, float]:
    """Return for each pair of arms, in given order, the exact p of their counts (learned, runs), adjusted for all
    pairs.

    Closed testing: a pair's p is the largest over all sets of arms that contain the pair, which keeps the chance of
    any false claim at 5% whatever is true (Marcus, Peritz and Gabriel, Biometrika 63 (1976) 655-660). `counts` must
    be in an order fixed beforehand, from the least to the most explained: a set of three or more is tested by its
    first against its last arm (70% of the error) and by all its arms together (30%). So 0 of 3 against 3 of 3 is a
    claim for the first and last arms of any study, and for an arm in between where the others agree; Holm's
    adjustment, used beyond 12 arms, would allow it for no pair.
    """
    pairs = list(combinations(counts, 2))
    if len(counts) > MOST_CLOSED:
        alone = [learned_equally_often((min(counts[a], counts[b]), max(counts[a], counts[b]))) for a, b in pairs]
        return dict(zip(pairs, holm(alone), strict=True))
    adjusted = dict.fromkeys(pairs, 0.0)
    for size in range(2, len(counts) + 1):
        for arms in combinations(counts, size):
            p_value = _one_share([counts[arm] for arm in arms])
            for pair in combinations(arms, 2):
                adjusted[pair] = max(adjusted[pair], p_value)
    return adjusted


def _one_share(counts: Sequence[tuple[int, int]]) -> float:
    """Return the p that all the arms learn equally often, from the ends and all arms (see `closed_learned`)."""
    ends = learned_equally_often((min(counts[0], counts[-1]), max(counts[0], counts[-1])))
    if len(counts) == 2:
        return ends
    together = learned_equally_often(tuple(sorted(counts)))
    return min(1.0, ends / ENDS_SHARE, together / (1 - ENDS_SHARE))


def judge(
    difference: Estimate, p_adjusted: float | None, p_learned: float | None, seeds: int, margin: float
) -> Verdict:
    """Return the verdict on the first arm against the second. Differences within the margin do not count."""
    low, high = difference.low, difference.high
    if seeds < FEWEST_SEEDS or low is None or high is None or p_adjusted is None:
        return "unclear"
    if -margin <= low and high <= margin:
        return "same"
    significant = p_adjusted < ALPHA and (p_learned is None or p_learned < ALPHA)
    if not significant or low <= 0 <= high:
        return "unclear"
    return "better" if difference.mean > 0 else "worse"


def seeds_for_difference(difference: float, variances: tuple[float, float], pairs: int) -> int | None:
    """Return the fewest seeds per arm that show `difference` with 80% power; None above 100.

    The smallest n with |difference| / sqrt((v1 + v2) / n) >= t(1 - alpha/2, df) + z(0.8), alpha = 5% / pairs: the
    normal approximation to the power of the t test (Cohen, Statistical Power Analysis, 1988, chapter 12).
    """
    seeds = np.arange(FEWEST_SEEDS, MOST_SEEDS + 1)
    first, second = variances
    freedom = (first + second) ** 2 / (first**2 + second**2) * (seeds - 1)
    critical = stats.t.isf(ALPHA / pairs / 2, freedom)
    enough = abs(difference) / np.sqrt((first + second) / seeds) >= critical + POWER_QUANTILE
    return int(seeds[np.argmax(enough)]) if enough.any() else None


def seeds_for_shares(first: float, second: float, pairs: int) -> int | None:
    """Return the fewest runs per arm that show two different shares of runs that learned, or None above 100.

    Cohen's h: n = 2 ((z(1 - alpha/2) + z(0.8)) / h)^2, h = 2 asin sqrt(p1) - 2 asin sqrt(p2) (as above, chapter 6);
    and no fewer than n with 2^(1 - 2n) pairs < 5%, without which not even all against none is a claim.
    """
    effect = abs(2 * math.asin(math.sqrt(first)) - 2 * math.asin(math.sqrt(second)))
    quantile = float(stats.norm.isf(ALPHA / pairs / 2)) + POWER_QUANTILE
    by_power = math.ceil(2 * (quantile / effect) ** 2)
    needed = max(by_power, math.ceil((1 + math.log2(pairs / ALPHA)) / 2))
    return needed if needed <= MOST_SEEDS else None
