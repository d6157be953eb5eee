"""Studies replayed from recorded learning curves, as a stop rule would have had them.

Reports come in the order in which they would come: every trial's first seed first (sweep/proposer.py), two runs at
once, three waiting in Ray Tune's queue that start though their trial was given up meanwhile, time by examples. The
judge is the arbiter that real studies have, or a peer.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from benchmarks.learning_curves import Curve, Recording, read_curves
from showhow.evidence.compare import compare
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import StudyResult
from showhow.fingerprint import Json
from showhow.metrics import VALIDATION, on_split
from showhow.sweep.arbiter import Arbiter, Judged
from showhow.tasks.explain import Level

# A run confirms its goal on the whole validation split. Only a part of it is recorded: the next report stands for that.
GOAL, SOLVED, IN_A_ROW = 0.98, 0.95, 2
AT_ONCE, WAITING, QUESTIONS = 2, 3, 100
SEEDS = 3
ACCURACY = on_split(VALIDATION, "accuracy")
Point = tuple[float, int]  # learning rate and batch size


@dataclass(frozen=True)
class Pool:
    """Recorded runs, by level and point. budget: examples of a whole run."""

    runs: dict[tuple[str, Point], list[Curve]]
    budget: int
    guessing: float

    @property
    def levels(self) -> list[str]:
        """The levels recorded, from nothing shown to all."""
        return [level.value for level in Level if any(level == known for known, _ in self.runs)]

    @property
    def points(self) -> list[Point]:
        """The points recorded, each at every level."""
        return sorted({point for _, point in self.runs})


def read_pool(recording: Recording) -> Pool:
    """Return what was recorded. Raises ValueError while runs are missing."""
    runs: dict[tuple[str, Point], list[Curve]] = defaultdict(list)
    for curve in read_curves(recording):
        runs[curve.level, (curve.learning_rate, curve.batch_size)].append(curve)
    pool = Pool(dict(runs), max(curve.examples[-1] for curves in runs.values() for curve in curves), recording.guessing)
    if any(len(runs[level, point]) < SEEDS for level in pool.levels for point in pool.points):
        raise ValueError(f"{recording.curves} is not complete; run python -m benchmarks.stopping --record 150")
    return pool


class Judge(Protocol):
    """What is asked at each report whether a run goes on: the arbiter, or a peer."""

    stopped: set[str]

    def report(self, run: Judged, metrics: dict[str, float], /) -> bool:
        """Return True when the run is to be stopped."""

    def finished(self, run: Judged, /) -> None:
        """Hear that a run ended by itself."""


@dataclass(frozen=True)
class Replayable:
    """A run as a judge sees it; its budget is in examples."""

    arm: str
    trial: str
    seed: int
    budget: float
    unit: str = "examples"
    setting: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class _StandIn:
    trial_id: str


class PlainAsha:
    """The peer that stops: Ray's ASHA as it is used, over all runs alike or over those of a level; it knows no seeds.
    Each run counts with the accuracy at which it ended."""

    def __init__(self, metric: str, budget: int, *, by_level: bool = False) -> None:
        self.stopped: set[str] = set()  # it gives up runs, never trials
        self._metric, self._budget, self._by_level = metric, budget, by_level
        self._rules: dict[str, AsyncHyperBandScheduler] = {}
        self._known: set[str] = set()

    def report(self, run: Judged, metrics: dict[str, float]) -> bool:
        """Ask Ray."""
        stand_in, group = _StandIn(f"{run.trial}/{run.seed}"), run.arm if self._by_level else ""
        if group not in self._rules:
            self._rules[group] = self._rule()
        if stand_in.trial_id not in self._known:
            self._known.add(stand_in.trial_id)
            self._rules[group].on_trial_add(None, stand_in)
        return bool(self._rules[group].on_trial_result(None, stand_in, metrics) == TrialScheduler.STOP)

    def _rule(self) -> AsyncHyperBandScheduler:
        mode = "min" if self._metric == "train_loss" else "max"
        return AsyncHyperBandScheduler(
            "examples", self._metric, mode, max_t=self._budget, grace_period=self._budget // 4
        )

    def finished(self, _run: Judged) -> None:
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
    guessing: float


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
    guessing: float

    @property
    def result(self) -> StudyResult:
        """What the study would have answered."""
        return compare(self.outcomes, self.guessing, self.guessing, SOLVED)


def name_of(level: str, point: Point) -> str:
    """Return what a trial is called."""
    rate, batch_size = point
    return f"{level} {rate} {batch_size}"


def draw(pool: Pool, points: int, share: float, repetition: int, *, other_seeds: bool = False) -> Draw:
    """Draw points, their order, and which recorded runs are their seeds; a point is the same at every level. share: of
    the budget recorded; other_seeds: the same points in the same order, with seeds drawn anew."""
    rng = random.Random(repetition)
    drawn = rng.sample(pool.points, points)
    if other_seeds:
        rng = random.Random(f"other seeds {repetition}")
    trials = [
        (level, name_of(level, point), rng.sample(pool.runs[level, point], SEEDS))
        for point in drawn
        for level in pool.levels
    ]
    runs = tuple((level, trial, seed, curves[seed]) for seed in range(SEEDS) for level, trial, curves in trials)
    return Draw(runs, round(share * pool.budget), pool.guessing)


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
    learned_at = (study.guessing + SOLVED) / 2  # as in evidence/compare.py
    missed = [final_accuracy(by_run[outcome.trial, outcome.seed], study.budget) >= learned_at for outcome in stopped]
    spent = sum(outcome.examples for outcome in outcomes) / (len(study.runs) * study.budget)
    return Replayed(tuple(outcomes), spent, fmean(missed) if missed else 0.0, study.guessing)


def _report(running: _Running, judge: Judge, rule: Rule, budget: int) -> RunOutcome | None:
    """Give a run's next report to the judge; return the outcome once it is over."""
    level, trial, seed, curve = running.run
    index = running.reports
    running.reports += 1
    examples, accuracy = curve.examples[index], curve.accuracy[index]
    running.in_a_row = running.in_a_row + 1 if accuracy >= GOAL and rule.has_goal else 0
    metrics = {"examples": examples, "train_loss": curve.train_loss[index], ACCURACY: accuracy}
    judged = Replayable(level, trial, seed, budget)
    is_stopped = judge.report(judged, metrics)
    if running.in_a_row == IN_A_ROW or examples == budget:
        judge.finished(judged)
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
        arm=level,
        level=level,
        is_control=Level(level).is_control,
        trial=trial,
        seed=seed,
        params={},
        status="stopped" if right is None else "finished",
        stopped_by=stopped_by,
        selection=seen[-1][1],
        grades=None if right is None else (True,) * right + (False,) * (QUESTIONS - right),
        examples=seen[-1][0],
        budget=budget,
        examples_until_solved=next((examples for examples, accuracy in seen if accuracy >= SOLVED), None),
    )


def final_accuracy(curve: Curve, budget: int) -> float:
    """Return the accuracy after a whole budget: on test where it was taken, else on validation."""
    if budget == curve.examples[-1]:
        return curve.test_accuracy
    return curve.accuracy[curve.examples.index(budget)]
