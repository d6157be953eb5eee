"""Decides which trials are stopped early. Trials are compared within a group (an arm in a setting), not run by run.

Within a seed the published rules decide (rules.py): they read one curve per trial, the mean over the seeds that have
reached a budget, once `min_seeds` of them have. Those rules have no seeds, so this file decides between seeds: a trial
begins another seed only while its finished ones are among the best of its group.
"""

import bisect
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Protocol

from showhow.fingerprint import Json
from showhow.metrics import VALIDATION, Measured, find, on_split
from showhow.sections.stopping import Asha, Median, NoStopping, StopRule
from showhow.sweep.rules import AsyncHalving, MedianOfMeans, Rule
from showhow.tracking.runs import Group, group_of

# At least so many trials of a group get all their seeds, so that another can represent it where the best one fails.
_REPRESENTATIVES = 2


class Judged(Protocol):
    """What the arbiter reads of a run: its group, trial and budget. `RunStarted` is one."""

    @property
    def arm(self) -> str: ...
    @property
    def setting(self) -> Mapping[str, Json]: ...
    @property
    def trial(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def unit(self) -> str:
        """The unit of the budget; reports have a metric of this name."""

    @property
    def budget(self) -> float:
        """The budget at which the run ends."""


@dataclass
class _Curve:
    """The reports of one run: budgets in rising order, and the metric at each. used, last: the share of its budget and
    the value when it finished; `used` is below 1 only for a run that reached its goal."""

    total: float
    budgets: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    used: float | None = None
    last: float = math.nan

    def at(self, budget: float) -> float:
        """Return the last value reported at or before a budget (the first one, before the first report)."""
        return self.values[max(0, bisect.bisect_right(self.budgets, budget) - 1)]

    def end(self, perfect: float) -> None:
        """Fill the budget that a run left when it reached its goal with `perfect`: otherwise a slower run could
        overtake it by lowering its loss further."""
        step = self._interval
        self.last = self.values[-1]
        self.used = self.budgets[-1] / self.total if self.budgets[-1] + step <= self.total else 1.0
        while self.budgets[-1] + step <= self.total:
            self.budgets.append(self.budgets[-1] + step)
            self.values.append(perfect)

    @property
    def _interval(self) -> float:
        """The budget between two reports: that of the first, unless it includes a cost before training."""
        gaps = [later - earlier for earlier, later in pairwise(self.budgets)]
        return min(self.budgets[0], 2 * max(gaps)) if gaps else self.budgets[0]


class Arbiter:
    """Receives every report of every run of a study, and decides which trials are stopped."""

    def __init__(self, rule: StopRule, seeds: int) -> None:
        """`seeds`: how many runs a trial has."""
        self._rule = rule
        self._seeds = seeds
        self._rules: dict[Group, Rule] = {}
        self._curves: defaultdict[Group, dict[str, dict[int, _Curve]]] = defaultdict(dict)  # group, trial, seed
        self._fed: dict[str, float] = {}
        self.stopped: set[str] = set()

    def report(self, run: Judged, metrics: Mapping[str, float]) -> bool:
        """Add one report of a run. Returns True when its trial should be stopped, now or by an earlier decision."""
        trial = run.trial
        if isinstance(self._rule, NoStopping) or trial in self.stopped:
            return trial in self.stopped
        spent, group = metrics[run.unit], _group_of(run)
        curve = self._curves[group].setdefault(trial, {}).setdefault(run.seed, _Curve(run.budget))
        if curve.budgets and spent <= curve.budgets[-1]:
            return False  # a new attempt repeats the reports of an earlier one
        curve.budgets.append(spent)
        curve.values.append(metrics[self._logged_as])
        self._decide(self._rule, group, trial, run.budget)
        return trial in self.stopped

    def finished(self, run: Judged) -> None:
        """A run reached its goal or the end of its budget."""
        group, trial = _group_of(run), run.trial
        curve = self._curves[group].get(trial, {}).get(run.seed)
        if isinstance(self._rule, NoStopping) or curve is None or trial in self.stopped:
            return
        curve.end(0.0 if self._metric.better == "lower" else 1.0)
        if self._falls_behind(self._rule, group, trial, curve.total):
            self.stopped.add(trial)

    def forget(self, run: Judged) -> None:
        """Ignore a run from now on: its reports say nothing about the quality of its trial."""
        group, trial = _group_of(run), run.trial
        curves = self._curves[group].get(trial, {})
        curves.pop(run.seed, None)
        if not curves:
            self._curves[group].pop(trial, None)

    @property
    def _metric(self) -> Measured:
        return find("train_loss" if isinstance(self._rule, NoStopping) else self._rule.metric)

    @property
    def _logged_as(self) -> str:
        name = self._metric.name
        return name if name == "train_loss" else on_split(VALIDATION, name)

    def _decide(self, rule: Asha | Median, group: Group, trial: str, total: float) -> None:
        if self._falls_behind(rule, group, trial, total) or not self._merits_its_next_seed(rule, group, trial):
            self.stopped.add(trial)

    def _falls_behind(self, rule: Asha | Median, group: Group, trial: str, total: float) -> bool:
        """Give the group's rule the new points of a trial's mean curve; return whether the trial should stop."""
        needed = min(rule.min_seeds, self._seeds)
        curves = list(self._curves[group][trial].values())
        reached = sorted((curve.budgets[-1] for curve in curves), reverse=True)
        if len(reached) < needed:
            return False
        covered = reached[needed - 1]
        if group not in self._rules:  # created at the first report, when the budget is known
            self._rules[group] = _rule(rule, total)
        fed, sign = self._fed.get(trial, 0.0), -1.0 if self._metric.better == "lower" else 1.0
        # At the end of the budget there is nothing left to save; the next decision is between seeds.
        due = sorted({b for curve in curves for b in curve.budgets if fed < b <= covered and b < total})
        for budget in due:
            self._fed[trial] = budget
            value = fmean(curve.at(budget) for curve in curves if curve.budgets[-1] >= budget)
            gives_up = self._rules[group].gives_up(trial, budget, sign * value)
            others = sum(self._fed.get(other, 0.0) >= budget for other in self._curves[group] if other != trial)
            if gives_up and others >= rule.min_trials:
                return True
        return False

    def _merits_its_next_seed(self, rule: Asha | Median, group: Group, trial: str) -> bool:
        """Whether a trial with finished and remaining seeds is among the best of those with as many finished."""
        count = len(_ended(self._curves[group][trial]))
        if not min(rule.min_seeds, self._seeds) <= count < self._seeds:
            return True
        rivals = [_ended(curves) for curves in self._curves[group].values()]
        standings = sorted(self._standing(ended[:count]) for ended in rivals if len(ended) >= count)
        one_of = rule.reduction_factor if isinstance(rule, Asha) else 2.0
        continuing = min(max(_REPRESENTATIVES, math.ceil(len(standings) / one_of)), len(standings))
        return self._standing(_ended(self._curves[group][trial])) <= standings[continuing - 1]

    def _standing(self, ended: list[_Curve]) -> tuple[float, float]:
        """Return the sort key of a trial, best first: the share of the budget used until the goal, then the last
        value."""
        sign = 1.0 if self._metric.better == "lower" else -1.0
        return fmean(curve.used or 1.0 for curve in ended), fmean(sign * curve.last for curve in ended)


def _group_of(run: Judged) -> Group:
    return group_of(run.arm, run.setting)


def _ended(curves: dict[int, _Curve]) -> list[_Curve]:
    return [curve for curve in curves.values() if curve.used is not None]


def _rule(rule: Asha | Median, total: float) -> Rule:
    match rule:
        case Asha():
            return AsyncHalving(rule.grace * total, total, rule.reduction_factor)
        case Median():
            return MedianOfMeans(rule.grace * total, rule.min_trials)
