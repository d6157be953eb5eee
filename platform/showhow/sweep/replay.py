"""Rebuilds the state of a study from its journal: its runs and the arbiter's decisions."""

import time
from collections import Counter
from dataclasses import dataclass

from showhow.processes.ladder import INFEASIBLE
from showhow.study.plan import planned_trials
from showhow.study.study import Study
from showhow.sweep.arbiter import Arbiter
from showhow.tracking.runs import StudyRecord
from showhow.tracking.tracker import Event, Reported, RunEnded, RunStarted


@dataclass(frozen=True)
class Replay:
    """The state after the events of a journal. In a session the recorder adds further events to both."""

    arbiter: Arbiter
    record: StudyRecord

    def is_complete(self, study: Study) -> bool:
        """True when no run of the study remains: every trial was stopped, or finished with all its seeds."""
        finished = Counter(run.start.trial for run in self.record.runs.values() if run.status == "finished")
        complete = {trial for trial, runs in finished.items() if runs == len(study.seeds)}
        return len(complete | self.arbiter.stopped) == len(planned_trials(study))

    def missing_ends(self) -> list[RunEnded]:
        """Return the ends that a killed driver could not record."""
        reason = "the process that ran the study was killed"
        open_runs = [key for key, run in self.record.runs.items() if run.end is None]
        return [RunEnded(key, "interrupted", None, reason, {}, time.time()) for key in open_runs]


def replay(study: Study, events: list[Event]) -> Replay:
    """Return the state after the events of earlier sessions."""
    arbiter, record = Arbiter(study.stop, len(study.seeds)), StudyRecord()
    for event in events:
        record.hear(event)
        match event:
            case Reported() if event.run in record.runs:
                arbiter.report(record.runs[event.run].start, event.metrics)
            case RunEnded() if event.run in record.runs:
                _end(arbiter, record.runs[event.run].start, event)
    return Replay(arbiter, record)


def _end(arbiter: Arbiter, start: RunStarted, end: RunEnded) -> None:
    if end.status == "finished":
        arbiter.finished(start)
    elif end.status == "stopped":
        arbiter.stopped.add(start.trial)
    elif (end.reason or "").startswith(INFEASIBLE):
        arbiter.forget(start)
