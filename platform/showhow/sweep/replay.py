"""What earlier sittings of a study left in its journal: how often runs were tried, what was decided, what is open."""

import time
from collections import Counter
from dataclasses import dataclass

from showhow.processes.ladder import INFEASIBLE
from showhow.study.plan import planned_trials
from showhow.study.study import Study
from showhow.sweep.arbiter import Arbiter, Setting
from showhow.tracking.tracker import Event, Reported, RunEnded, RunStarted


@dataclass(frozen=True)
class Past:
    """The state that a journal tells. attempts: by run key, how often it was started; finished: by trial, how many of
    its runs were; open_runs: keys of runs that have a start and no end, because the driver was killed."""

    arbiter: Arbiter
    attempts: Counter[str]
    finished: Counter[str]
    open_runs: tuple[str, ...]

    def is_complete(self, study: Study) -> bool:
        """True when no run of the study is left to do: every trial was stopped, or finished with all its seeds."""
        whole = {trial for trial, runs in self.finished.items() if runs == len(study.seeds)}
        return len(whole | self.arbiter.stopped) == len(planned_trials(study))

    def closing(self) -> list[RunEnded]:
        """Return the ends that a killed driver could not record."""
        reason = "the process that ran the study was killed"
        return [RunEnded(run, "interrupted", None, reason, {}, time.time()) for run in self.open_runs]


def replay(study: Study, events: list[Event]) -> Past:
    """Return what the events tell, in the order in which they happened."""
    past = Past(Arbiter(study.stop, len(study.seeds), _settings(study)), Counter(), Counter(), ())
    starts: dict[str, RunStarted] = {}
    running: dict[str, None] = {}
    for event in events:
        match event:
            case RunStarted():
                starts[event.run] = event
                running[event.run] = None
                past.attempts[event.run] = event.attempt
            case Reported():
                start = starts[event.run]
                budget = int(str(start.params["max_examples"]))
                past.arbiter.report(start.arm, start.trial, start.seed, event.metrics, budget)
            case RunEnded():
                running.pop(event.run, None)
                _end(past, starts[event.run], event)
    return Past(past.arbiter, past.attempts, past.finished, tuple(running))


def _settings(study: Study) -> dict[str, Setting]:
    """Return by trial within which setting its arm is compared; nothing where the study has one setting."""
    return {trial.name: tuple(trial.setting.values()) for trial in study.trials} if len(study.settings) > 1 else {}


def _end(past: Past, start: RunStarted, event: RunEnded) -> None:
    if event.status == "finished":
        past.arbiter.finished(start.arm, start.trial, start.seed)
        past.finished[start.trial] += 1
    elif event.status == "stopped":
        past.arbiter.stopped.add(start.trial)
    elif (event.reason or "").startswith(INFEASIBLE):
        past.arbiter.forget(start.arm, start.trial, start.seed)
