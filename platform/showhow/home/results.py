"""A study's result read from its folder. It needs neither Ray nor MLflow, so it shows at once, also while a study
runs."""

from showhow.evidence.compare import compare
from showhow.evidence.journal import guessing, is_finished, read_outcomes
from showhow.evidence.plots import accuracy_picture
from showhow.evidence.result import StudyResult
from showhow.evidence.settings import settings_of
from showhow.home.folder import StudyFolder
from showhow.study.study import Study
from showhow.tracking.jsonl import read_events


def stored_result(folder: StudyFolder) -> tuple[Study, StudyResult]:
    """Return a study and what its journal tells so far."""
    study = folder.study()
    events = read_events(folder.journal)
    chance, baseline = guessing(events)
    levels = [level.value for level in study.levels]
    solved_at, settings = study.evaluation.solved_accuracy, settings_of(study.search)
    return study, compare(read_outcomes(events), chance, baseline, solved_at, levels, settings)


def is_over(folder: StudyFolder) -> bool:
    """True when the study has come to its end: no run is left to do."""
    return is_finished(read_events(folder.journal))


def write_result(folder: StudyFolder) -> StudyResult:
    """Compare what the journal tells, and write `results.json` and the picture beside it."""
    study, result = stored_result(folder)
    partial = folder.results.with_suffix(".partial")
    partial.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(folder.results)
    outcomes = read_outcomes(read_events(folder.journal))
    if any(outcome.curve for outcome in outcomes):
        accuracy_picture(outcomes, result, folder.picture, study.question)
    return result
