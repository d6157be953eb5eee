"""Studies replayed from recorded learning curves, as a stop rule would have had them.

Reports come in the order in which they would come: every trial's first seed first (tuning/space.py), two runs at once,
three waiting in Ray Tune's queue that start though their trial was given up meanwhile, time by examples. The judge is
the arbiter that real studies have, or a peer.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from benchmarks.learning_curves import Curve
from showhow.evidence.compare import compare
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import StudyResult
from showhow.metrics import VALIDATION, on_split
from showhow.tuning.arbiter import Arbiter

# A run confirms its goal on the whole validation split. Only a part of it is recorded: the next report stands for that.
GOAL, SOLVED, IN_A_ROW = 0.98, 0.95, 2
AT_ONCE, WAITING, QUESTIONS, CHANCE = 2, 3, 100, 0.1
SEEDS = 3
LEVELS = ("none", "short", "long")
ACCURACY = on_split(VALIDATION, "accuracy")
Pool = dict[tuple[str, float], list[Curve]]  # by level and learning rate


class Judge(Protocol):
    """What is asked at each report whether a run goes on: the arbiter, or a peer."""

    stopped: set[str]

    def report(self, level: str, trial: str, seed: int, metrics: dict[str, float], max_examples: int, /) -> bool:
        """Return True when the run is to be stopped."""

    def finished(self, level: str, trial: str, seed: int, /) -> None:
        """Hear that a run ended by itself."""


@dataclass(frozen=True)
class _StandIn:
    trial_id: str


class PlainAsha:
    """The peer that stops: Ray's ASHA as it is used, over all runs alike, which knows neither levels nor seeds. Each
    run counts with the accuracy at which it ended."""

    def __init__(self, metric: str, budget: int) -> None:
        self.stopped: set[str] = set()  # it gives up runs, never trials
        self._metric = metric
        mode = "min" if metric == "train_loss" else "max"
        self._asha = AsyncHyperBandScheduler("examples", metric, mode, max_t=budget, grace_period=budget // 4)
        self._known: set[str] = set()

    def report(self, _level: str, trial: str, seed: int, metrics: dict[str, float], _max_examples: int) -> bool:
        """Ask Ray."""
        run = _StandIn(f"{trial}/{seed}")
        if run.trial_id not in self._known:
            self._known.add(run.trial_id)
            self._asha.on_trial_add(None, run)
        return bool(self._asha.on_trial_result(None, run, metrics) == TrialScheduler.STOP)

    def finished(self, _level: str, _trial: str, _seed: int) -> None:
        """Nothing: Ray's ASHA keeps what was reported."""


@dataclass(frozen=True)
class Rule:
    """A way to stop. judge: made for each study from its budget in examples."""

    name: str
    judge: Callable[[int], Judge]
    has_goal: bool = True


@dataclass(frozen=True)
class Draw:
    """One repetition: the runs of a study in the order in which they are proposed, and their budget in examples."""

    runs: tuple[tuple[str, str, int, Curve], ...]  # level, trial, seed, what was recorded
    budget: int


@dataclass
class _Running:
    run: tuple[str, str, int, Curve]
    reports: int = 0
    in_a_row: int = 0


@dataclass(frozen=True)
class Replayed:
    """A study as a rule would have had it. spent: share of all runs' budgets; missed: share of the runs stopped within
    a first seed that would have learned the task."""

    outcomes: tuple[RunOutcome, ...]
    spent: float
    missed: float

    @property
    def result(self) -> StudyResult:
        """What the study would have answered."""
        return compare(self.outcomes, CHANCE, CHANCE, SOLVED, LEVELS)


def draw(pool: Pool, points: int, budget: int, repetition: int) -> Draw:
    """Draw points, their order, and which recorded runs are their seeds; a point is the same rate at every level."""
    rng = random.Random(repetition)
    rates = rng.sample(sorted({rate for _, rate in pool}), points)
    trials = [(level, rate, rng.sample(pool[level, rate], SEEDS)) for rate in rates for level in LEVELS]
    runs = tuple(
        (level, f"{level} {rate}", seed, curves[seed]) for seed in range(SEEDS) for level, rate, curves in trials
    )
    return Draw(runs, budget)


def replay(study: Draw, rule: Rule) -> Replayed:
    """Let a rule hear a study's reports in the order in which they would come."""
    judge = rule.judge(study.budget)
    proposed = (run for run in study.runs if run[1] not in judge.stopped)
    queue: list[tuple[str, str, int, Curve]] = []
    busy: list[tuple[int, int, _Running]] = []
    outcomes: list[RunOutcome] = []
    started = 0

    def start(now: int) -> None:
        nonlocal started
        while len(queue) <= WAITING and (run := next(proposed, None)):
            queue.append(run)
        if queue:
            started += 1
            run = queue.pop(0)
            heapq.heappush(busy, (now + run[3].examples[0], started, _Running(run)))

    for _ in range(AT_ONCE):
        start(0)
    while busy:
        now, number, running = heapq.heappop(busy)
        outcome = _report(running, judge, rule, study.budget)
        if outcome is None:
            heapq.heappush(busy, (now + running.run[3].examples[0], number, running))
        else:
            outcomes.append(outcome)
            start(now)
    stopped = [outcome for outcome in outcomes if outcome.stopped_by and outcome.seed == 0]
    by_run = {(trial, seed): curve for _, trial, seed, curve in study.runs}
    missed = [final_accuracy(by_run[outcome.trial, outcome.seed], study.budget) > 0.5 for outcome in stopped]
    spent = sum(outcome.examples for outcome in outcomes) / (len(study.runs) * study.budget)
    return Replayed(tuple(outcomes), spent, fmean(missed) if missed else 0.0)


def _report(running: _Running, judge: Judge, rule: Rule, budget: int) -> RunOutcome | None:
    """Give a run's next report to the judge; return the outcome once it is over."""
    level, trial, seed, curve = running.run
    index = running.reports
    running.reports += 1
    examples, accuracy = curve.examples[index], curve.accuracy[index]
    running.in_a_row = running.in_a_row + 1 if accuracy >= GOAL and rule.has_goal else 0
    metrics = {"examples": examples, "train_loss": curve.train_loss[index], ACCURACY: accuracy}
    is_stopped = judge.report(level, trial, seed, metrics, budget)
    if running.in_a_row == IN_A_ROW or examples == budget:
        judge.finished(level, trial, seed)
        final = final_accuracy(curve, budget) if examples == budget else accuracy
        return _outcome(running, budget, final)
    if not is_stopped:
        return None
    # A user of the peer has every run's last accuracy; ours says that a stopped trial cannot be compared.
    return _outcome(running, budget, None if isinstance(judge, Arbiter) else accuracy, rule.name)


def _outcome(running: _Running, budget: int, final: float | None, stopped_by: str | None = None) -> RunOutcome:
    level, trial, seed, curve = running.run
    seen = list(zip(curve.examples, curve.accuracy, strict=True))[: running.reports]
    right = None if final is None else round(final * QUESTIONS)
    return RunOutcome(
        level=level,
        trial=trial,
        seed=seed,
        params={},
        status="stopped" if right is None else "finished",
        stopped_by=stopped_by,
        selection=seen[-1][1],
        grades=None if right is None else (True,) * right + (False,) * (QUESTIONS - right),
        examples=seen[-1][0],
        budget_examples=budget,
        examples_until_solved=next((examples for examples, accuracy in seen if accuracy >= SOLVED), None),
    )


def final_accuracy(curve: Curve, budget: int) -> float:
    """Return the accuracy after a whole budget: on test where it was taken, else on validation."""
    if budget == curve.examples[-1]:
        return curve.test_accuracy
    return curve.accuracy[curve.examples.index(budget)]
