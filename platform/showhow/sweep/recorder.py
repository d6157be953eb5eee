"""Converts Ray Tune's messages about its trials to events, and passes reports to the arbiter. Runs in the driver."""

import json
import time
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from showhow.datasets.prepare import Preparation
from showhow.fingerprint import Json
from showhow.metrics import TEST, on_split
from showhow.processes.ladder import INFEASIBLE
from showhow.processes.trial import FAILURE, MESSAGE, METRICS, NOTE, OUTCOME, STAGE
from showhow.sections.trial import Trial
from showhow.sweep.proposer import NOT_SAVED, Proposer, Run, TuneSearch
from showhow.sweep.replay import Replay
from showhow.tracking.tracker import (
    Event,
    RepliesSampled,
    Reported,
    RunEnded,
    RunNoted,
    RunStarted,
    RunStatus,
    StageEnded,
    Tracker,
)


class Recorder:
    """Continues the record of a study during one session, and sends every event to the tracker."""

    def __init__(self, tracker: Tracker, replay: Replay, preparation: Preparation, rule: str) -> None:
        """`replay`: the state after earlier sessions; `rule`: the name of the stop rule, for the runs that it ends."""
        self._tracker, self._preparation, self._rule = tracker, preparation, rule
        self._arbiter, self._study = replay.arbiter, replay.record
        self._started: dict[str, Run] = {}  # in this session
        self.fault: OSError | None = None  # why an event could not be recorded
        self._missing_ends = replay.missing_ends()

    def end_interrupted(self) -> None:
        """Record the ends of runs whose driver was killed in an earlier session."""
        for end in self._missing_ends:
            self._record(end)

    def start(self, run: Run) -> None:
        """A run starts, or restarts after its process died."""
        if self.has_ended(run):
            return  # it has reported its outcome; only its process was restarted
        known = self._study.runs.get(run.key)
        self._started[run.key] = run
        trial = run.trial
        self._record(
            RunStarted(
                run=run.key,
                trial=trial.name,
                seed=run.seed,
                arm=trial.arm,
                level=trial.level.value,
                setting=dict(trial.setting),
                is_control=trial.is_control,
                unit=trial.budget.unit,
                budget=trial.budget.amount,
                params=flat_params(trial, run.seed),
                datasets=self._preparation.of(trial).manifests,
                attempt=known.start.attempt + 1 if known else 1,
                seconds_since_epoch=time.time(),
            )
        )

    def hear(self, run: Run, message: dict[str, Any]) -> bool:
        """Process one message of a run. Returns True when the run should stop or has sent its last message, so that Ray
        Tune does not ask it again."""
        if self.has_ended(run):
            return True
        if METRICS in message:
            return self._metrics(run, message[METRICS])
        if NOTE in message:
            self._record(RunNoted(run=run.key, seconds_since_epoch=time.time(), **message[NOTE]))
        elif STAGE in message:
            self._record(StageEnded(run=run.key, seconds_since_epoch=time.time(), **message[STAGE]))
        elif FAILURE in message:
            self._failure(run, message[FAILURE])
        elif OUTCOME in message:
            self._outcome(run, message[OUTCOME])
        return self.has_ended(run)

    def _metrics(self, run: Run, metrics: dict[str, float]) -> bool:
        self._record(Reported(run.key, int(metrics["examples"]), metrics, time.time()))
        if not self._arbiter.report(self._start_of(run), metrics):
            return False
        if on_split(TEST, "accuracy") in metrics:
            return False  # the last report, at the end of the budget or at the goal: the outcome follows immediately
        self.end(run, "stopped", stopped_by=self._rule)
        return True

    def _failure(self, run: Run, reason: str) -> None:
        if reason.startswith(INFEASIBLE):
            self._arbiter.forget(self._start_of(run))
        self.end(run, "failed", reason=reason)

    def _outcome(self, run: Run, outcome: dict[str, Any]) -> None:
        for split, rows in outcome["samples"].items():
            self._record(RepliesSampled(run.key, split, rows, time.time()))
        self._arbiter.finished(self._start_of(run))
        self.end(run, "finished", outcome={name: outcome[name] for name in ("reached_goal", "grades")})

    def end(
        self,
        run: Run,
        status: RunStatus,
        *,
        stopped_by: str | None = None,
        reason: str | None = None,
        outcome: dict[str, Json] | None = None,
    ) -> None:
        """Record the end of a run; only its first end counts."""
        if self.has_ended(run):
            return
        if run.key not in self._started:
            self.start(run)  # its process never started, and an end needs a start
        self._record(RunEnded(run.key, status, stopped_by, reason, outcome or {}, time.time()))

    def has_ended(self, run: Run) -> bool:
        """True when a run that this session started has ended."""
        return run.key in self._started and self._study.runs[run.key].end is not None

    def result_of(self, run: Run) -> float | None:
        """Return the last validation accuracy of a run, or None when it failed or never reported."""
        record = self._study.runs[run.key]
        return None if record.status == "failed" else record.accuracy

    def interrupt(self) -> int:
        """Mark every unfinished run as interrupted; return how many there were."""
        open_runs = [run for run in self._started.values() if not self.has_ended(run)]
        for run in open_runs:
            self.end(run, "interrupted")
        return len(open_runs)

    def _start_of(self, run: Run) -> RunStarted:
        return self._study.runs[run.key].start

    def _record(self, event: Event) -> None:
        try:
            self._tracker.record(event)
        except OSError as error:
            self.fault = error
            raise
        self._study.hear(event)


def flat_params(trial: Trial, seed: int) -> dict[str, Json]:
    """Return every setting of a run under a dotted name, recipe fields without a prefix; and each searched axis under
    its own name, so that the trial can be rebuilt where an axis names a variant of a section."""
    params: dict[str, Json] = {"explanation": trial.level.value, "seed": seed}
    params |= trial.recipe.model_dump(mode="json")
    for section in ("task", "data", "model", "adapter", "method", "evaluation"):
        settings = getattr(trial, section)
        if settings is not None:
            params |= {f"{section}.{name}": value for name, value in settings.model_dump(mode="json").items()}
    return params | {axis: value for axis, value in trial.point.items() if axis not in params}


class TuneCallbacks(Callback):  # type: ignore[misc]
    """Forwards Ray Tune's callbacks to the recorder."""

    def __init__(self, search: TuneSearch, recorder: Recorder, proposer: Proposer) -> None:
        self._search, self._recorder, self._proposer = search, recorder, proposer
        self._began: dict[str, float] = {}

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (NOT_SAVED,)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """A run starts, or restarts after its process died."""
        self._began[trial.trial_id] = time.monotonic()
        self._recorder.start(self._search.by_trial_id[trial.trial_id])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """A run has ended; without a reported outcome it has failed."""
        self._over(trial, "the process ended without an outcome")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """A run's process died after its last retry."""
        self._over(trial, _reason(trial))

    def _over(self, trial: Any, reason: str) -> None:
        run = self._search.by_trial_id[trial.trial_id]
        self._recorder.end(run, "failed", reason=reason)
        now = time.monotonic()
        self._proposer.learn(run.trial, self._recorder.result_of(run), now - self._began.get(trial.trial_id, now))


def _reason(trial: Any) -> str:
    lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()] or ["unknown"]
    kind = "the process died" if "died" in lines[0].lower() or "ActorDied" in lines[0] else lines[-1]
    return kind[:500]


class ArbiterScheduler(FIFOScheduler):  # type: ignore[misc]
    """Starts runs in the proposed order and stops those of trials that the arbiter stops (for Ray, a scheduler)."""

    def __init__(self, search: TuneSearch, recorder: Recorder) -> None:
        super().__init__()
        self._search, self._recorder = search, recorder

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (NOT_SAVED,)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Process one message of a run and decide whether it continues."""
        message = json.loads(result[MESSAGE]) if MESSAGE in result else {}
        stop = self._recorder.hear(self._search.by_trial_id[trial.trial_id], message)
        decision: str = TrialScheduler.STOP if stop else TrialScheduler.CONTINUE
        return decision
