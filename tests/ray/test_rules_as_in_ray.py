"""Our stop rules decide as Ray Tune's schedulers do, report by report."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from showhow.sweep.rules import AsyncHalving, MedianOfMeans, Rule, percentile

TOTAL = 1000.0
Report = tuple[str, float, float]  # trial, budget, value

# Multiples of 1/64, so that sums are exact in whatever order they are taken, and ties occur.
values = st.integers(-640, 640).map(lambda number: number / 64)


@dataclass(frozen=True)
class StandIn:
    """What Ray's schedulers read of a trial."""

    trial_id: str


@st.composite
def reports(draw: st.DrawFn) -> list[Report]:
    """Curves of up to ten trials, their reports interleaved; steps from small to most of the budget at once."""
    curves: list[list[Report]] = []
    for number in range(draw(st.integers(1, 10))):
        steps = draw(st.lists(st.integers(1, 600), min_size=1, max_size=8))
        budgets = [float(budget) for budget in np.cumsum(steps) if budget < TOTAL]
        curves.append([(f"trial-{number}", budget, draw(values)) for budget in budgets])
    order = draw(st.permutations([index for index, curve in enumerate(curves) for _ in curve]))
    remaining = [iter(curve) for curve in curves]
    return [next(remaining[index]) for index in order]


def decisions(rule: Rule, told: list[Report]) -> list[bool]:
    stopped: set[str] = set()
    decided = []
    for trial, budget, value in told:
        if trial not in stopped:
            decided.append(rule.gives_up(trial, budget, value))
            stopped |= {trial} if decided[-1] else set()
    return decided


class OfRay:
    """A scheduler of Ray's with the face of our rules."""

    def __init__(self, scheduler: AsyncHyperBandScheduler | MedianStoppingRule, sign: float) -> None:
        self.scheduler, self.sign = scheduler, sign
        self.known: set[str] = set()

    def gives_up(self, trial: str, budget: float, value: float) -> bool:
        stand_in = StandIn(trial)
        if trial not in self.known:
            self.known.add(trial)
            self.scheduler.on_trial_add(None, stand_in)
        result = {"budget": budget, "value": self.sign * value}
        return bool(self.scheduler.on_trial_result(None, stand_in, result) == TrialScheduler.STOP)


def shared(mode: str, grace: float) -> dict:
    return {"time_attr": "budget", "metric": "value", "mode": mode, "grace_period": grace}


signs = pytest.mark.parametrize(("mode", "sign"), [("max", 1.0), ("min", -1.0)])
graces = st.sampled_from([0.01, 0.1, 0.25, 0.33, 0.5, 0.9])


@signs
@given(told=reports(), grace=graces, factor=st.sampled_from([1.1, 1.5, 2.0, 3.0, 4.0, 100.0]))
def test_asynchronous_halving(mode: str, sign: float, told: list[Report], grace: float, factor: float) -> None:
    scheduler = AsyncHyperBandScheduler(
        **shared(mode, grace * TOTAL), max_t=TOTAL, reduction_factor=factor, stop_last_trials=False
    )
    ours = AsyncHalving(grace * TOTAL, TOTAL, factor)
    assert decisions(ours, told) == decisions(OfRay(scheduler, sign), told)


@signs
@given(told=reports(), grace=graces, others=st.integers(1, 5))
def test_the_median_of_running_means(mode: str, sign: float, told: list[Report], grace: float, others: int) -> None:
    scheduler = MedianStoppingRule(
        **shared(mode, grace * TOTAL), min_samples_required=others, min_time_slice=float("inf")
    )
    assert decisions(MedianOfMeans(grace * TOTAL, others), told) == decisions(OfRay(scheduler, sign), told)


@given(
    known=st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")), min_size=1, max_size=20),
    percent=st.floats(0, 100),
)
def test_percentiles_are_those_of_numpy_to_the_last_bit(known: list[float], percent: float) -> None:
    if not np.isnan(known).all():
        assert percentile(known, percent) == np.nanpercentile(known, percent)
