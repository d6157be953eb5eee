"""Decides which trials go on. Within a level only, and by trials, not by single runs: the value of a trial at a budget
is the mean over the seeds that have come that far, and nothing is decided before `min_seeds` of them have.

The decisions are those of Ray's own schedulers (ASHA, median); this file feeds them one curve per trial. It starts
nothing.
"""

import bisect
from dataclasses import dataclass, field
from statistics import fmean

from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from showhow.metrics import VALIDATION, find, on_split
from showhow.study.stopping import Asha, Median, NoStopping, StopRule


@dataclass(frozen=True)
class _TrialStandIn:
    """What Ray's rules want to know of a trial."""

    trial_id: str


@dataclass
class _Curve:
    """The reports of one run: budgets in rising order, and the metric at each."""

    total: float
    budgets: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def at(self, budget: float) -> float:
        """Return the last value reported at or before a budget (the first one, before the first report)."""
        return self.values[max(0, bisect.bisect_right(self.budgets, budget) - 1)]


class Arbiter:
    """Hears every report of every run of a study, and says which trials are stopped."""

    def __init__(self, rule: StopRule, seeds: int) -> None:
        """`seeds`: how many runs a trial has."""
        self._rule = rule
        self._seeds = seeds
        self._levels: dict[str, AsyncHyperBandScheduler | MedianStoppingRule] = {}
        self._curves: dict[str, dict[int, _Curve]] = {}
        self._fed: dict[str, float] = {}
        self.stopped: set[str] = set()

    def report(self, level: str, trial: str, seed: int, metrics: dict[str, float], max_examples: int) -> bool:
        """Take one report. Returns True when the trial is to be stopped, now or by an earlier decision."""
        if isinstance(self._rule, NoStopping) or trial in self.stopped:
            return trial in self.stopped
        budget = metrics[self._rule.budget]
        total = budget / metrics["examples"] * max_examples
        curve = self._curves.setdefault(trial, {}).setdefault(seed, _Curve(total))
        if curve.budgets and budget <= curve.budgets[-1]:
            return False  # a run tried again repeats what it reported before
        curve.budgets.append(budget)
        curve.values.append(metrics[self._metric])
        return self._decide(level, trial, total)

    def finished(self, level: str, trial: str, seed: int) -> None:
        """A run ended by itself: its last value counts for the rest of the budget, so that a run that reached its goal
        early is not missing where later ones are compared."""
        curve = self._curves.get(trial, {}).get(seed)
        if isinstance(self._rule, NoStopping) or curve is None or trial in self.stopped:
            return
        step, last = curve.budgets[0], curve.values[-1]
        while curve.budgets[-1] + step <= curve.total:
            curve.budgets.append(curve.budgets[-1] + step)
            curve.values.append(last)
        self._decide(level, trial, curve.total)

    @property
    def _metric(self) -> str:
        if isinstance(self._rule, NoStopping) or self._rule.metric == "train_loss":
            return "train_loss"
        return on_split(VALIDATION, self._rule.metric)

    def _decide(self, level: str, trial: str, total: float) -> bool:
        if isinstance(self._rule, NoStopping):
            return False
        needed = min(self._rule.min_seeds, self._seeds)
        curves = list(self._curves[trial].values())
        reached = sorted((curve.budgets[-1] for curve in curves), reverse=True)
        if len(reached) < needed:
            return False
        come_so_far = reached[needed - 1]
        ray_rule = self._rule_of(level, trial, total)
        due = sorted({b for curve in curves for b in curve.budgets if self._fed.get(trial, 0.0) < b <= come_so_far})
        for budget in due:
            self._fed[trial] = budget
            value = fmean(curve.at(budget) for curve in curves if curve.budgets[-1] >= budget)
            result = {"budget": budget, "value": value}
            if ray_rule.on_trial_result(None, _TrialStandIn(trial), result) == TrialScheduler.STOP:
                self.stopped.add(trial)
                break  # Ray's rules want to hear no more of a trial that they stopped
        return trial in self.stopped

    def _rule_of(self, level: str, trial: str, total: float) -> AsyncHyperBandScheduler | MedianStoppingRule:
        """Return the level's rule, made at its first report, when the size of the budget is known."""
        if level not in self._levels:
            self._levels[level] = _ray_rule(self._rule, self._metric, total)
        rule = self._levels[level]
        if trial not in self._fed:
            rule.on_trial_add(None, _TrialStandIn(trial))
            self._fed[trial] = 0.0
        return rule


def _ray_rule(rule: StopRule, metric: str, total: float) -> AsyncHyperBandScheduler | MedianStoppingRule:
    shared = {"time_attr": "budget", "metric": "value", "mode": "min" if find(metric).better == "lower" else "max"}
    match rule:
        case Asha():
            return AsyncHyperBandScheduler(
                **shared,
                grace_period=rule.grace * total,
                max_t=total,
                reduction_factor=rule.reduction_factor,
                stop_last_trials=False,
            )
        case Median():
            return MedianStoppingRule(
                **shared,
                grace_period=rule.grace * total,
                min_samples_required=rule.min_trials,
                min_time_slice=float("inf"),  # never pause a trial to wait for others
            )
        case NoStopping():
            raise ValueError("without a stop rule there is nothing to decide")
