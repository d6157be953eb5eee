"""Deletes checkpoints that a study does not need: the best finished runs keep their weights, stopped runs keep nothing,
and resumable runs keep their state. It runs in the driver and receives the event stream like a tracker.

It deletes only in the study's folder of checkpoints, and nothing of an active run, which deletes its own older
checkpoints (training/checkpoints/saving.py). Only one driver at a time runs a study (tracking/jsonl.py).
"""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from showhow.metrics import VALIDATION, on_split
from showhow.sections.resources import Checkpoints
from showhow.tracking.runs import Group, RunRecord, StudyRecord
from showhow.tracking.tracker import Event, Reported, RunEnded, RunStarted, RunStatus, StudyEnded

log = logging.getLogger("showhow")

_ACCURACY = on_split(VALIDATION, "accuracy")
_GB = 10**9
_MEASURE_SECONDS = 60.0  # between two measurements of what active runs have saved


class Keeper:
    """Keeps the checkpoints of a study within the limits of its `[checkpoints]` section.

    The `keep_best` best finished runs keep their weights (see `worth`), and so does the best run of each arm's leading
    trial in each setting, which represents the arm there (with keep_best = 0, none does). Above `budget_gb` weights are
    deleted first, the worst first and those of leading trials last; then the state of failed runs, then of interrupted
    ones. The best run's weights and the state of active runs are not deleted; if they alone take more, it warns
    once."""

    def __init__(self, folder: Path, settings: Checkpoints, earlier: Iterable[Event] = ()) -> None:
        """`folder`: the study's checkpoints, by run key; `earlier`: the events of earlier sessions."""
        self._folder, self._settings = folder, settings
        self._study = StudyRecord()
        self._dropped: set[str] = set()  # runs whose checkpoints are deleted
        self._undeleted: set[str] = set()
        self._measured_at = -math.inf
        self._has_warned = False
        for event in earlier:
            self._hear(event)
        self._tidy()

    def record(self, event: Event) -> None:
        """Process an event. When a run ends, delete what is not needed."""
        self._hear(event)
        if isinstance(event, RunEnded | StudyEnded):
            self._tidy()
        elif isinstance(event, Reported) and time.monotonic() > self._measured_at + _MEASURE_SECONDS:
            self._keep_to_budget()

    def close(self) -> None:
        """Do nothing."""

    def _hear(self, event: Event) -> None:
        self._study.hear(event)
        if isinstance(event, RunStarted):
            self._undeleted.discard(event.run)
            self._dropped.discard(event.run)

    @property
    def _runs(self) -> dict[str, RunRecord]:
        return self._study.runs

    def _tidy(self) -> None:
        spared = self._spared()
        for key in [*self._with_status("stopped"), *self._with_status("finished")]:
            if key not in spared:
                self._drop(key)
        for key in spared:  # its last checkpoint has only the weights
            for state in sorted(_entries(self._path(key)))[:-1]:
                shutil.rmtree(state, ignore_errors=True)
        for key in list(self._undeleted):
            self._delete(key)
        self._keep_to_budget()

    def _spared(self) -> list[str]:
        """Return the finished runs that keep their weights: those of leading trials, then the others, the best
        first."""
        if self._settings.keep_best == 0:
            return []
        best_first = sorted(self._with_status("finished"), key=lambda key: (*worth(self._runs[key].metrics), key))
        leading = self._leading_trials()
        firsts = {self._runs[key].start.trial: key for key in reversed(best_first)}
        leaders = [key for key in best_first if key in (firsts.get(trial) for trial in leading)]
        others = [key for key in best_first[: self._settings.keep_best] if key not in leaders]
        return leaders + others

    def _leading_trials(self) -> list[str]:
        """Return for each arm in each setting the trial with the most finished runs, then the best by their mean."""
        trials: dict[Group, dict[str, list[tuple[float, float, float]]]] = {}
        for run in self._runs.values():
            if run.status == "finished":
                trials.setdefault(run.group, {}).setdefault(run.start.trial, []).append(worth(run.metrics))

        def rank(runs: list[tuple[float, float, float]]) -> tuple[float, ...]:
            return (-len(runs), *(fmean(values) for values in zip(*runs, strict=True)))

        return [min(group, key=lambda trial: rank(group[trial])) for group in trials.values()]

    def _keep_to_budget(self) -> None:
        self._measured_at = time.monotonic()
        sizes = {key: _bytes_in(self._path(key)) for key in self._runs if key not in self._dropped}
        left = self._settings.budget_gb * _GB - sum(sizes.values())
        for key in [*reversed(self._spared()[1:]), *self._with_status("failed"), *self._with_status("interrupted")]:
            if left >= 0:
                return
            if sizes[key]:
                left += sizes[key]
                self._drop(key)
        if left < 0 and not self._has_warned:
            self._has_warned = True
            log.warning(
                "the checkpoints of active runs and the best run's weights take %.1f GB, %.1f GB more than "
                "checkpoints.budget_gb = %g, and are not deleted; raise it, or train fewer runs at once "
                "(resources.max_concurrent)",
                self._settings.budget_gb - left / _GB,
                -left / _GB,
                self._settings.budget_gb,
            )

    def _with_status(self, status: RunStatus) -> list[str]:
        """Return the runs of a status whose checkpoints are not deleted."""
        return [key for key, run in self._runs.items() if run.status == status and key not in self._dropped]

    def _drop(self, key: str) -> None:
        self._dropped.add(key)
        self._delete(key)

    def _delete(self, key: str) -> None:
        """Delete a run's folder; try again later if its process is still writing there."""
        path = self._path(key)
        if path is not None and path.exists():
            shutil.rmtree(path, ignore_errors=True)
        (self._undeleted.add if path is not None and path.exists() else self._undeleted.discard)(key)

    def _path(self, key: str) -> Path | None:
        """Return the folder of a run; None if its key points elsewhere (anyone may edit a journal)."""
        root, path = self._folder.resolve(), (self._folder / key).resolve()
        return path if root in path.parents else None


def worth(metrics: dict[str, float]) -> tuple[float, float, float]:
    """Return the sort key of a finished run by its last report, the best first: the highest validation accuracy, then
    the fewest examples until solved, then the lowest training loss."""
    solved_at = metrics.get("examples_until_solved", math.inf)
    return (-metrics.get(_ACCURACY, -1.0), solved_at, metrics.get("train_loss", math.inf))


def _entries(folder: Path | None) -> list[Path]:
    try:
        return list(folder.iterdir()) if folder is not None else []
    except OSError:
        return []


def _bytes_in(folder: Path | None) -> int:
    total = 0
    for entry in _entries(folder):
        for file in _entries(entry):
            with contextlib.suppress(OSError):  # deleted meanwhile
                total += file.stat().st_size
    return total
