"""Chooses the run of a study to export: the one that its result recommends, among those with saved weights."""

import contextlib
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from showhow.errors import UserError, nearest
from showhow.evidence.journal import read_outcomes
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import ArmRow, StudyResult
from showhow.fingerprint import Json
from showhow.home.folder import StudyFolder
from showhow.metrics import TEST
from showhow.sections.trial import Trial
from showhow.tracking.jsonl import read_events
from showhow.tracking.runs import RunRecord, fold
from showhow.tracking.tracker import RunStarted, StudyStarted

_KEEP = "[checkpoints] keep_best sets how many runs save weights; raise it, and run the study under another name"


@dataclass(frozen=True)
class PastRun:
    """A run read from the study's journal: its record, and its outcome for the comparison."""

    record: RunRecord
    outcome: RunOutcome

    @property
    def start(self) -> RunStarted:
        """The start of its last attempt."""
        return self.record.start

    @property
    def key(self) -> str:
        """Its name within the study."""
        return self.start.run


class PastStudy:
    """The contents of a study's folder: its result so far, its runs, and the weights of some."""

    def __init__(self, folder: StudyFolder) -> None:
        """Raises UserError when the folder cannot be read."""
        self.folder, self.study = folder, folder.study()
        events = read_events(folder.journal)
        self._record = fold(events)
        runs = zip(self._record.runs.items(), read_outcomes(events), strict=True)
        self._runs = {key: PastRun(record, outcome) for (key, record), outcome in runs}

    @cached_property
    def result(self) -> StudyResult:
        """The comparison so far."""
        if self._record.is_finished:
            with contextlib.suppress(OSError, ValueError):  # removed, or of another version
                return StudyResult.model_validate_json(self.folder.results.read_bytes(), strict=True)
        from showhow.home.results import Results  # loads scipy and matplotlib: a second

        return Results(self.folder).result

    def run(self, key: str) -> PastRun:
        """Return the run with this key. Raises UserError if there is none, or it has no weights."""
        run = self._runs.get(key)
        if run is None:
            of_trial = [known for known in self._runs if known.startswith(f"{key}/")]
            hint = nearest(key, of_trial or self._runs)
            raise UserError(f'{self.folder.name} has no run "{key}".{hint} Runs with weights: {self._listed()}')
        if run.outcome.grades is None:
            raise UserError(f"{key} is {run.outcome.status}, not finished. Runs with weights: {self._listed()}")
        if not self.is_kept(run):
            raise UserError(f"{key} has no saved weights. Runs with weights: {self._listed()}. {_KEEP}")
        return run

    def best(self) -> PastRun:
        """Return the best run with weights, by validation accuracy, of the trial that the study recommends; if it
        recommends none, of the best trial by validation accuracy; if that trial has no weights, of its arm.

        Raises UserError when the study is not finished, or that arm has no weights."""
        if not self._record.is_finished:
            raise UserError(
                f'the study "{self.folder.name}" is not finished; resume it with "showhow run", or name a finished run '
                f"with --run. Runs with weights: {self._listed()}"
            )
        arm, trial = self._recommended()
        available = [run for run in self._finished() if run.start.arm == arm and self.is_kept(run)]
        if not available:
            raise UserError(
                f"{arm}, the best of {self.folder.name}, has no saved weights. Runs with weights: "
                f"{self._listed()}; name one with --run. {_KEEP}"
            )
        return min(
            available, key=lambda run: (run.start.trial != trial, -(run.outcome.selection or 0.0), run.start.seed)
        )

    def _recommended(self) -> tuple[str, str]:
        """Return the recommended arm and trial; if there is none, the trial with the highest mean validation accuracy
        of those that represent an arm, controls last."""
        if self.result.recommend is not None:
            return self.result.recommend.arm, self.result.recommend.trial
        rows = [row for row in self.result.compared if not row.is_control] or list(self.result.compared)
        if not rows:
            raise UserError(f"{self.folder.name} has no complete trial, so there is no best one; name a run with --run")

        def accuracy(row: ArmRow) -> float:
            return fmean(run.outcome.selection or 0.0 for run in self._finished() if run.start.trial == row.trial)

        best = max(rows, key=accuracy)
        return best.arm, str(best.trial)

    def _finished(self) -> list[PastRun]:
        return [run for run in self._runs.values() if run.outcome.grades is not None]

    def is_kept(self, run: PastRun) -> bool:
        """True if the run's weights or its export exist."""
        checkpoints = self.folder.checkpoints / run.key
        return any(checkpoints.glob("*/manifest.json")) or self.folder.exported(run.key).is_dir()

    def _listed(self) -> str:
        return ", ".join(run.key for run in self._finished() if self.is_kept(run)) or "none"

    def trial(self, run: PastRun) -> Trial:
        """Return the trial of a run, rebuilt from its value on each axis."""
        params: dict[str, Any] = run.start.params  # scalars for axes; axes of other variants are absent
        point = {axis: params[axis] for axis in self.study.search.axes if axis in params}
        return self.study.trial(run.start.trial, point)

    @property
    def start(self) -> StudyStarted:
        """The study's latest start."""
        if not self._record.starts:
            raise UserError(f"{self.folder.journal} does not record the study's start; run the study again")
        return self._record.starts[-1]

    def sample(self, run: PastRun) -> dict[str, Json] | None:
        """Return the first recorded test question with the run's reply."""
        rows = run.record.samples.get(TEST)
        return rows[0] if rows else None

    def remarks(self, run: PastRun) -> tuple[str, ...]:
        """Return what happened to a run apart from its metrics, in sentences."""
        return tuple(note.text for note in run.record.notes)
