"""The state that results from a study's events: of the study, and of each of its runs. Pure.

The only fold of the event stream. Readers of a journal call `fold`; code that watches a running study passes each event
to `StudyRecord.hear`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from showhow.fingerprint import Json
from showhow.metrics import VALIDATION, on_split
from showhow.tracking.tracker import (
    Event,
    RepliesSampled,
    Reported,
    RunEnded,
    RunNoted,
    RunStarted,
    RunStatus,
    StageEnded,
    StudyEnded,
    StudyStarted,
)

Group = tuple[str, str]  # an arm, and the setting in which it is compared
OfRun = RunStarted | Reported | RunNoted | RepliesSampled | StageEnded | RunEnded

_ACCURACY = on_split(VALIDATION, "accuracy")


def group_of(arm: str, setting: Mapping[str, Json]) -> Group:
    """Return the group in which trials are compared: early stopping, search and retention treat groups separately."""
    return arm, json.dumps(setting, sort_keys=True)


@dataclass
class RunRecord:
    """The state of a run after its events.

    start: of the current attempt. reports: metrics by training examples; those of the current attempt, and of earlier
    attempts up to the checkpoint from which it resumed. stages and samples (rows by split) are those of the current
    attempt. notes: of all attempts. end: None while the run is under way.
    """

    start: RunStarted
    reports: dict[int, dict[str, float]] = field(default_factory=dict)
    notes: list[RunNoted] = field(default_factory=list)
    stages: list[StageEnded] = field(default_factory=list)
    samples: dict[str, list[dict[str, Json]]] = field(default_factory=dict)
    end: RunEnded | None = None
    _earlier: dict[int, dict[str, float]] = field(default_factory=dict)  # reports of the attempts before
    _notes_before: int = 0  # how many notes are older than the current attempt

    def hear(self, event: OfRun) -> None:
        """Take the next event of this run. Hearing an event a second time changes nothing."""
        match event:
            case RunStarted() if event != self.start:
                self._restart(event)
            case Reported():
                self.reports[event.examples] = event.metrics
            case RunNoted() if event not in self.notes:
                self.notes.append(event)
                if event.kind == "resumed":
                    self._resume(event.examples)
            case StageEnded() if event not in self.stages:
                self.stages.append(event)
            case RepliesSampled():
                self.samples[event.split] = event.rows
            case RunEnded():
                self.end = event

    def _restart(self, start: RunStarted) -> None:
        """Begin another attempt. Earlier reports count again only if the attempt resumes from them."""
        self._earlier |= self.reports
        self._notes_before = len(self.notes)
        self.start, self.reports, self.stages, self.samples, self.end = start, {}, [], {}, None

    def _resume(self, at_examples: int) -> None:
        """Keep the reports up to a checkpoint; the later ones will be reported again."""
        known = self._earlier | self.reports
        self.reports = {examples: known[examples] for examples in known if examples <= at_examples}

    @property
    def metrics(self) -> dict[str, float]:
        """The latest report; empty before the first."""
        return self.reports[max(self.reports)] if self.reports else {}

    @property
    def accuracy(self) -> float | None:
        """The latest validation accuracy; None before the first evaluation."""
        return self.metrics.get(_ACCURACY)

    @property
    def seconds(self) -> float:
        """Wall time of training and evaluation."""
        metrics = self.metrics
        return metrics.get("train_seconds", 0.0) + metrics.get("eval_seconds", 0.0)

    @property
    def spent(self) -> float:
        """How much of its budget the run has used, in the budget's unit."""
        return self.metrics.get(self.start.unit, 0.0)

    @property
    def status(self) -> RunStatus | None:
        """How the run ended; None while it is under way."""
        return self.end.status if self.end else None

    @property
    def group(self) -> Group:
        """The arm and the setting that the run belongs to."""
        return group_of(self.start.arm, self.start.setting)

    @property
    def notes_of_attempt(self) -> list[RunNoted]:
        """The notes of the current attempt."""
        return self.notes[self._notes_before :]


@dataclass
class StudyRecord:
    """The state of a study after its events. starts: one for each session; end: of the latest session, None while it is
    under way; runs: by key, in the order in which they first started."""

    starts: list[StudyStarted] = field(default_factory=list)
    end: StudyEnded | None = None
    runs: dict[str, RunRecord] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        """Take the next event. Events of a run that never started are left out."""
        match event:
            case StudyStarted():
                self.starts.append(event)
                self.end = None
            case StudyEnded():
                self.end = event
            case RunStarted() if event.run not in self.runs:
                self.runs[event.run] = RunRecord(event)
            case _ if event.run in self.runs:
                self.runs[event.run].hear(event)

    @property
    def is_finished(self) -> bool:
        """True when the study's latest session came to its end."""
        return self.end is not None and self.end.status == "finished"


def fold(events: Iterable[Event]) -> StudyRecord:
    """Return the state that results from events."""
    record = StudyRecord()
    for event in events:
        record.hear(event)
    return record
