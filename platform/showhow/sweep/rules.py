"""The two published rules that stop trials early, for trials of one group. Pure: no seeds, no Ray.

Both decide as Ray Tune 2.60 does (AsyncHyperBandScheduler with `stop_last_trials=False`, MedianStoppingRule), which
tests/ray/test_rules_as_in_ray.py checks; except that means are exact here, so that rounding breaks no tie. Higher
values are better; budgets are in any one unit, and those of a trial rise.
"""

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import Protocol


class Rule(Protocol):
    """Receives reports one by one, and decides about the trial of each."""

    def gives_up(self, trial: str, budget: float, value: float) -> bool:
        """Add the value that a trial has reached with a budget; return whether the trial should be stopped."""


class AsyncHalving:
    """Asynchronous successive halving (Li et al., arXiv 1810.05934): at each rung a trial continues if its value is in
    the best 1 / reduction_factor of those recorded there earlier."""

    def __init__(self, grace: float, total: float, reduction_factor: float) -> None:
        """grace: budget at the first rung; total: budget of a complete run, which no rung exceeds."""
        self._percent = (1 - 1 / reduction_factor) * 100
        rungs = int(math.log(total / grace) / math.log(reduction_factor) + 1)
        self._rungs: list[tuple[float, dict[str, float]]] = [
            (grace * reduction_factor**rung, {}) for rung in reversed(range(rungs))
        ]

    def gives_up(self, trial: str, budget: float, value: float) -> bool:
        """See Rule. A report that passes several rungs at once counts at the highest of them."""
        for milestone, recorded in self._rungs:
            if budget < milestone:
                continue
            if trial in recorded:
                return False
            others = list(recorded.values())
            recorded[trial] = value
            return value < percentile(others, self._percent)
        return False


class MedianOfMeans:
    """The median stopping rule (Golovin et al., KDD 2017): a trial is stopped if its best value so far is worse than
    the median of the others' running means. A mean is over the values from `grace` to the trial's budget; `min_trials`
    others are needed."""

    def __init__(self, grace: float, min_trials: int) -> None:
        self._grace, self._min_trials = grace, min_trials
        self._curves: dict[str, list[tuple[float, float]]] = {}  # by trial: budgets and values

    def gives_up(self, trial: str, budget: float, value: float) -> bool:
        """See Rule."""
        own = self._curves.setdefault(trial, [])
        own.append((budget, value))
        if budget < self._grace:
            return False
        others = (curve for name, curve in self._curves.items() if name != trial and curve[-1][0] >= budget)
        windows = ([known for at, known in curve if self._grace <= at <= budget] for curve in others)
        means = [mean for mean in map(fmean, filter(None, windows)) if math.isfinite(mean)]
        return len(means) >= self._min_trials and max(known for _, known in own) < median(means)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of some values, by linear interpolation between neighbours (the default method of numpy,
    rounded as numpy rounds). NaNs are ignored; NaN where there are no other values."""
    ordered = sorted(value for value in values if not math.isnan(value))
    if not ordered:
        return math.nan
    place = percent / 100 * (len(ordered) - 1)
    low = math.floor(place)
    below, above, weight = ordered[low], ordered[min(low + 1, len(ordered) - 1)], place - low
    step = above - below
    return below + step * weight if weight < 0.5 else above - step * (1 - weight)
