"""Reads a study's result from its folder, also while it runs. It needs neither Ray nor MLflow, so it is fast."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showhow.evidence.compare import compare
from showhow.evidence.design import Design
from showhow.evidence.journal import guessing, is_finished, read_outcomes
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.plots import accuracy_picture
from showhow.evidence.result import StudyResult
from showhow.evidence.settings import settings_in_words
from showhow.home.folder import StudyFolder, home_folder
from showhow.metrics import TEST, VALIDATION, on_split
from showhow.study.study import Study
from showhow.study.variants import EXPLANATION
from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import Event

if TYPE_CHECKING:
    import pandas

_Columns = dict[str, list[Any]]


def results(name: str, home: Path | str | None = None) -> "Results":
    """Return what a study has found so far, also while it runs. home: the folder of all studies (default: SHOWHOW_HOME
    or showhow-runs). Raises UserError where there is no study of this name."""
    return Results(StudyFolder.existing(home_folder() if home is None else Path(home).resolve(), name))


class Results:
    """A snapshot of a study's journal; make a new one to see later events."""

    def __init__(self, folder: StudyFolder) -> None:
        """Raises UserError when the folder cannot be read."""
        self.folder = folder
        self.study: Study = folder.study()
        self._events: list[Event] = read_events(folder.journal)

    @cached_property
    def outcomes(self) -> list[RunOutcome]:
        """The outcome so far of each run that has started, in starting order."""
        return read_outcomes(self._events)

    @cached_property
    def result(self) -> StudyResult:
        """The rows, comparisons and conclusion so far."""
        chance, baseline = guessing(self._events)
        solved_at = self.study.evaluation.solved_accuracy
        return compare(self.outcomes, chance, baseline, solved_at, Design.of(self.study))

    @property
    def is_over(self) -> bool:
        """True when the study has no run left to do."""
        return is_finished(self._events)

    def frame(self) -> "pandas.DataFrame":
        """Return a row per run that has started. Columns: arm; the axes of the settings, the compared axes and the
        tuned axes, by their names; trial, seed; status (`finished`, `stopped`, `failed`, `interrupted`, or
        `unfinished` for a run whose end is not recorded), level; the last accuracy on each split
        (`validation/accuracy`, `test/accuracy` ...), from 0 to 1, and the user's own metrics on each; examples,
        tokens, flops and seconds spent; stopped_by, reason."""
        return _frame(_runs_of(self.study, self.outcomes))

    def answers(self) -> "pandas.DataFrame":
        """Return a row per test question of each finished run, as `showhow.verdict` takes them. Columns: arm,
        is_control, setting (in words), trial, seed, question (its index in the test set), right, validation (the run's
        accuracy), examples, tokens, flops (spent by the run)."""
        frame = _frame(_answers_of(self.outcomes))
        places = settings_in_words([dict(setting) for setting in self.study.settings])
        for column, names in (("arm", [arm.name for arm in self.study.arms]), ("setting", places)):
            if column in frame:  # categories keep the order of the study
                frame[column] = frame[column].astype(_ordered(names, frame[column]))
        return frame


def _runs_of(study: Study, outcomes: Sequence[RunOutcome]) -> _Columns:
    values = {arm.name: arm.values for arm in study.arms}
    within = list(dict.fromkeys(axis for setting in study.settings for axis in setting))
    tuned = [axis for axis in study.search.axes if axis not in (*within, *study.by, EXPLANATION)]
    columns: _Columns = {"arm": [run.arm for run in outcomes]}
    columns |= {axis: [run.setting.get(axis) for run in outcomes] for axis in within}
    columns |= {axis: [values.get(run.arm, {}).get(axis) for run in outcomes] for axis in study.by}
    columns |= {axis: [run.params.get(axis) for run in outcomes] for axis in tuned}
    columns |= {
        "trial": [run.trial for run in outcomes],
        "seed": [run.seed for run in outcomes],
        "status": [run.status if run.has_ended else "unfinished" for run in outcomes],
        "level": [run.level for run in outcomes],
        on_split(VALIDATION, "accuracy"): [run.selection for run in outcomes],
        on_split(TEST, "accuracy"): [_share_right(run) for run in outcomes],
    }
    other_splits = dict.fromkeys(split for run in outcomes for split in run.splits)
    columns |= {on_split(split, "accuracy"): [run.splits.get(split) for run in outcomes] for split in other_splits}
    own = dict.fromkeys(name for run in outcomes for name in run.own_metrics)
    columns |= {name: [run.own_metrics.get(name) for run in outcomes] for name in own}
    for name in ("examples", "tokens", "flops", "seconds", "stopped_by", "reason"):
        columns[name] = [getattr(run, name) for run in outcomes]
    return columns


def _answers_of(outcomes: Sequence[RunOutcome]) -> _Columns:
    graded = [(run, run.grades) for run in outcomes if run.grades is not None]
    places = settings_in_words([run.setting for run, _ in graded]) or [""] * len(graded)
    columns: _Columns = {
        "arm": [run.arm for run, grades in graded for _ in grades],
        "is_control": [run.is_control for run, grades in graded for _ in grades],
    }
    if any(places):
        columns["setting"] = [place for (_, grades), place in zip(graded, places, strict=True) for _ in grades]
    columns |= {
        "trial": [run.trial for run, grades in graded for _ in grades],
        "seed": [run.seed for run, grades in graded for _ in grades],
        "question": [question for _, grades in graded for question in range(len(grades))],
        "right": [right for _, grades in graded for right in grades],
    }
    known = {"validation": "selection", "examples": "examples", "tokens": "tokens", "flops": "flops"}
    for name, field in known.items():
        if all(getattr(run, field) is not None for run, _ in graded):
            columns[name] = [getattr(run, field) for run, grades in graded for _ in grades]
    return columns


def _share_right(run: RunOutcome) -> float | None:
    return sum(run.grades) / len(run.grades) if run.grades else None


def _frame(columns: _Columns) -> "pandas.DataFrame":
    import pandas  # takes half a second

    return pandas.DataFrame(columns)


def _ordered(names: list[str], column: "pandas.Series") -> "pandas.CategoricalDtype":
    import pandas

    others = [name for name in column.unique() if name not in names]
    return pandas.CategoricalDtype([*names, *others], ordered=True)


def final_metrics(result: StudyResult) -> dict[str, float]:
    """Return the test accuracy of each arm's best trial as a metric of the study: `long/test/accuracy`, with several
    settings `layers 2/long/test/accuracy`."""
    places = settings_in_words([row.setting for row in result.rows]) if result.has_settings else [""] * len(result.rows)
    return {
        "/".join(part for part in (place, row.arm, on_split(TEST, "accuracy")) if part): row.accuracy.mean
        for place, row in zip(places, result.rows, strict=True)
        if row.accuracy is not None
    }


def write_result(folder: StudyFolder) -> StudyResult:
    """Compare the runs in the journal, and write `results.json` and the picture into the study's folder."""
    found = Results(folder)
    partial = folder.results.with_suffix(".partial")
    partial.write_text(found.result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(folder.results)
    if any(outcome.curve for outcome in found.outcomes):
        accuracy_picture(found.outcomes, found.result, folder.picture, found.study.question)
    return found.result
