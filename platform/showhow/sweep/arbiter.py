"""Decides which trials go on. Within a level only, at a setting where the study compares several (a model's size, say),
and by trials, not by single runs. It starts nothing.

Within a seed the decisions are those of Ray's own schedulers (ASHA, median): they are fed one curve per trial, the mean
over the seeds that have come that far, once `min_seeds` of them have. Ray knows of no seeds, so between them this file
decides: a trial begins a further seed only while its finished ones are among the best of its group: of its level and
setting.
"""

import bisect
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from showhow.metrics import VALIDATION, Measured, find, on_split
from showhow.sections.scalars import Scalar
from showhow.sections.stopping import Asha, Median, NoStopping, StopRule

Setting = tuple[Scalar, ...]  # values of the model, the task or the data, where the study compares them
_Group = tuple[str, Setting]  # level and setting: trials are compared with those of the same group

# So many trials of a group get all their seeds, so that another can speak for it where the best one fails.
_SPEAKERS = 2


@dataclass(frozen=True)
class _TrialStandIn:
    """What Ray's rules want to know of a trial."""

    trial_id: str


@dataclass
class _Curve:
    """The reports of one run: budgets in rising order, and the metric at each. used, last: the share of its budget and
    the value at which it ended by itself; `used` is below 1 only for a run that reached its goal."""

    total: float
    budgets: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    used: float | None = None
    last: float = math.nan

    def at(self, budget: float) -> float:
        """Return the last value reported at or before a budget (the first one, before the first report)."""
        return self.values[max(0, bisect.bisect_right(self.budgets, budget) - 1)]

    def end(self, perfect: float) -> None:
        """Fill up the budget that a run left when it reached its goal. No value is better than `perfect`, else a run
        that was slower would pass it by lowering its loss further."""
        step = self.budgets[0]
        self.last = self.values[-1]
        self.used = self.budgets[-1] / self.total if self.budgets[-1] + step <= self.total else 1.0
        while self.budgets[-1] + step <= self.total:
            self.budgets.append(self.budgets[-1] + step)
            self.values.append(perfect)


class Arbiter:
    """Hears every report of every run of a study, and says which trials are stopped."""

    def __init__(self, rule: StopRule, seeds: int, settings: Mapping[str, Setting] | None = None) -> None:
        """`seeds`: how many runs a trial has; `settings`: by trial, where the study compares more than levels (see
        evidence/settings.py)."""
        self._rule = rule
        self._seeds = seeds
        self._settings = settings or {}
        self._rules: dict[_Group, AsyncHyperBandScheduler | MedianStoppingRule] = {}
        self._curves: defaultdict[_Group, dict[str, dict[int, _Curve]]] = defaultdict(dict)  # group, trial, seed
        self._fed: dict[str, float] = {}
        self.stopped: set[str] = set()

    def report(self, level: str, trial: str, seed: int, metrics: dict[str, float], max_examples: int) -> bool:
        """Take one report. Returns True when the trial is to be stopped, now or by an earlier decision."""
        if isinstance(self._rule, NoStopping) or trial in self.stopped:
            return trial in self.stopped
        budget = metrics[self._rule.budget]
        total = budget / metrics["examples"] * max_examples
        group = self._group(level, trial)
        curve = self._curves[group].setdefault(trial, {}).setdefault(seed, _Curve(total))
        if curve.budgets and budget <= curve.budgets[-1]:
            return False  # a run tried again repeats what it reported before
        curve.budgets.append(budget)
        curve.values.append(metrics[self._logged_as])
        self._decide(self._rule, group, trial, total)
        return trial in self.stopped

    def finished(self, level: str, trial: str, seed: int) -> None:
        """A run ended by itself, at its goal or with its budget used up."""
        group = self._group(level, trial)
        curve = self._curves[group].get(trial, {}).get(seed)
        if isinstance(self._rule, NoStopping) or curve is None or trial in self.stopped:
            return
        curve.end(0.0 if self._metric.better == "lower" else 1.0)
        if self._falls_behind(self._rule, group, trial, curve.total):
            self.stopped.add(trial)

    def forget(self, level: str, trial: str, seed: int) -> None:
        """Leave a run out of account from now on: what it reported says nothing of its trial's worth."""
        group = self._group(level, trial)
        curves = self._curves[group].get(trial, {})
        curves.pop(seed, None)
        if not curves:
            self._curves[group].pop(trial, None)

    def _group(self, level: str, trial: str) -> _Group:
        return level, self._settings.get(trial, ())

    @property
    def _metric(self) -> Measured:
        return find("train_loss" if isinstance(self._rule, NoStopping) else self._rule.metric)

    @property
    def _logged_as(self) -> str:
        name = self._metric.name
        return name if name == "train_loss" else on_split(VALIDATION, name)

    def _decide(self, rule: Asha | Median, group: _Group, trial: str, total: float) -> None:
        if self._falls_behind(rule, group, trial, total) or not self._merits_its_next_seed(rule, group, trial):
            self.stopped.add(trial)

    def _falls_behind(self, rule: Asha | Median, group: _Group, trial: str, total: float) -> bool:
        """Feed Ray's rule what has come due of a trial's mean curve; return whether the trial is to go."""
        needed = min(rule.min_seeds, self._seeds)
        curves = list(self._curves[group][trial].values())
        reached = sorted((curve.budgets[-1] for curve in curves), reverse=True)
        if len(reached) < needed:
            return False
        come_so_far = reached[needed - 1]
        ray_rule = self._rule_of(rule, group, trial, total)
        # At the very end there is nothing left to save; who goes on from there is decided between seeds.
        due = sorted(
            {b for curve in curves for b in curve.budgets if self._fed[trial] < b <= come_so_far and b < total}
        )
        for budget in due:
            self._fed[trial] = budget
            value = fmean(curve.at(budget) for curve in curves if curve.budgets[-1] >= budget)
            decision = ray_rule.on_trial_result(None, _TrialStandIn(trial), {"budget": budget, "value": value})
            others = sum(self._fed.get(other, 0.0) >= budget for other in self._curves[group] if other != trial)
            if decision == TrialScheduler.STOP and others >= rule.min_trials:
                return True  # Ray's rules want to hear no more of a trial that they stopped
        return False

    def _merits_its_next_seed(self, rule: Asha | Median, group: _Group, trial: str) -> bool:
        """Whether a trial with finished seeds and further ones to go is among the best of those with as many."""
        count = len(_ended(self._curves[group][trial]))
        if not min(rule.min_seeds, self._seeds) <= count < self._seeds:
            return True
        rivals = [_ended(curves) for curves in self._curves[group].values()]
        standings = sorted(self._standing(ended[:count]) for ended in rivals if len(ended) >= count)
        one_of = rule.reduction_factor if isinstance(rule, Asha) else 2.0
        kept = min(max(_SPEAKERS, math.ceil(len(standings) / one_of)), len(standings))
        return self._standing(_ended(self._curves[group][trial])) <= standings[kept - 1]

    def _standing(self, ended: list[_Curve]) -> tuple[float, float]:
        """Return the sort key of a trial, the best first: by how soon its runs reached their goal, then by how they
        ended."""
        sign = 1.0 if self._metric.better == "lower" else -1.0
        return fmean(curve.used or 1.0 for curve in ended), fmean(sign * curve.last for curve in ended)

    def _rule_of(
        self, rule: Asha | Median, group: _Group, trial: str, total: float
    ) -> AsyncHyperBandScheduler | MedianStoppingRule:
        """Return the group's rule, made at its first report, when the size of the budget is known."""
        if group not in self._rules:
            self._rules[group] = _ray_rule(rule, self._metric, total)
        ray_rule = self._rules[group]
        if trial not in self._fed:
            ray_rule.on_trial_add(None, _TrialStandIn(trial))
            self._fed[trial] = 0.0
        return ray_rule


def _ended(curves: dict[int, _Curve]) -> list[_Curve]:
    return [curve for curve in curves.values() if curve.used is not None]


def _ray_rule(rule: Asha | Median, metric: Measured, total: float) -> AsyncHyperBandScheduler | MedianStoppingRule:
    shared = {"time_attr": "budget", "metric": "value", "mode": "min" if metric.better == "lower" else "max"}
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
