"""Exports a run of a study to a folder, with its model card, and registers it in MLflow."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from showhow.datasets.prepare import Preparation
from showhow.errors import UserError
from showhow.evidence.outcome import RunOutcome
from showhow.home.folder import StudyFolder, home_folder
from showhow.home.past_study import PastRun, PastStudy
from showhow.models.exported import EXPORTED, Exported
from showhow.sections.adapter import PromptTuning
from showhow.sections.recipe import PretrainedModel
from showhow.sections.trial import Trial
from showhow.tracking.address import tracking_uri

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What to export. run: its key (None: the best run); to: the folder (None: one in the study's folder); as_adapter:
    the adapter without its base; overwrite: replace another export."""

    run: str | None = None
    to: Path | None = None
    as_adapter: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class ExportedRun:
    """An exported run: its folder, the folder's metadata, the run's outcome, and one of its test questions. is_new:
    False if it was exported before."""

    folder: Path
    exported: Exported
    outcome: RunOutcome
    example: str
    is_new: bool


def export(
    name: str,
    to: Path | str | None = None,
    *,
    run: str | None = None,
    as_adapter: bool = False,
    overwrite: bool = False,
    home: Path | str | None = None,
) -> Path:
    """Export a run of a study as a Hugging Face folder with a model card, and return the folder.

    name: the study's; to: a new folder (None: one in the study's folder); run: such as `trial-003/seed-1` (None: the
    best, by validation accuracy); as_adapter: write the adapter without its base; overwrite: replace another export in
    the folder; home: the folder of all studies (None: SHOWHOW_HOME or showhow-runs). Raises UserError when there is
    nothing to export, no weights were saved, or the folder contains something else."""
    folder = StudyFolder.existing(home_folder() if home is None else Path(home).resolve(), name)
    wish = Wish(run, None if to is None else Path(to), as_adapter, overwrite)
    return export_run(folder, wish, lambda _line: None).folder


def export_run(folder: StudyFolder, wish: Wish, say: Say) -> ExportedRun:
    """Export a run of a study, unless it is already exported there. `say` receives lines on progress.

    Raises UserError when there is nothing to export, no weights were saved (see `PastStudy`), or the target folder
    contains something else."""
    past = PastStudy(folder)
    run = past.run(wish.run) if wish.run else past.best()
    trial = past.trial(run)
    if wish.as_adapter and trial.adapter is None:
        raise UserError(f"{run.key} has no adapter: {folder.name} has no [adapter] section. Leave --adapter out")
    own = folder.exported(f"{run.key}-adapter" if wish.as_adapter else run.key)
    target = own if wish.to is None else wish.to.resolve()
    exported = None if wish.overwrite else _same_export(target, past, run, wish)
    is_new = exported is None
    if exported is None:
        _check_free(target, may_replace=wish.overwrite or target == own)
        exported = _write(past, run, target, wish, say)
    sample = past.sample(run)
    return ExportedRun(target, exported, run.outcome, str(sample["question"]) if sample else "", is_new)


def _is_adapter(trial: Trial, wish: Wish) -> bool:
    """True where only the adapter is exported: on request, or if it cannot be merged into weights."""
    return wish.as_adapter or isinstance(trial.adapter, PromptTuning)


def _same_export(target: Path, past: PastStudy, run: PastRun, wish: Wish) -> Exported | None:
    """Return the target's metadata if it is already an export of this run."""
    if not (target / EXPORTED).exists():
        return None
    try:
        found = Exported.read(target)
    except UserError:  # of another version
        return None
    trial = past.trial(run)
    same = (found.study, found.run, found.trial, found.as_adapter)
    return found if same == (past.study.name, run.key, trial, _is_adapter(trial, wish)) else None


def _check_free(target: Path, may_replace: bool) -> None:
    if (target / EXPORTED).exists():
        if not may_replace:
            raise UserError(f"{target} contains another exported run; name another folder, or add --overwrite")
    elif target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target} exists and was not exported by ShowHow; name a folder that is new or empty")


def _write(past: PastStudy, run: PastRun, target: Path, wish: Wish, say: Say) -> Exported:
    say(f"exporting {run.key} of {past.study.name} to {target}")
    from showhow.evidence.model_card import CardFacts, model_card
    from showhow.exports.write import Described, TrainedRun, export  # loads torch

    trial, model = past.trial(run), past.study.model
    is_local = isinstance(model, PretrainedModel) and Path(model.name).is_dir()

    def card(described: Described) -> str:
        return model_card(
            CardFacts(
                exported=described.exported,
                study=past.start,
                start=run.start,
                outcome=run.outcome,
                result=past.result,
                sample=past.sample(run),
                base=model.name if isinstance(model, PretrainedModel) and not is_local else None,
                licence=described.licence,
                has_encoder=described.has_encoder,
                dtype=described.dtype,
                remarks=past.remarks(run),
            )
        )

    prepared = Preparation(past.folder.home, lambda _line: None).of(trial)  # exists unless it was deleted
    weights = past.folder.checkpoints / run.key
    trained = TrainedRun(past.study.name, run.key, trial, run.start.seed, weights, prepared)
    try:
        return export(trained, target, _is_adapter(trial, wish), card)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error}") from error


def register_run(folder: StudyFolder, run: ExportedRun) -> tuple[str, bool]:
    """Register an exported run as a version of the model with the study's name. Returns its address in MLflow, and
    whether the version is new. Raises UserError when the registry cannot be reached or refuses it."""
    from showhow.tracking.mlflow.tracker import check_reachable

    uri = tracking_uri(folder.home)
    check_reachable(uri)
    from showhow.exports.write import let_mlflow_describe  # loads torch
    from showhow.tracking.mlflow.registry import ModelToRegister, register  # loads mlflow

    let_mlflow_describe()
    grades = run.outcome.grades or ()
    accuracy = f"{sum(grades) / len(grades):.4f}" if grades else "unknown"
    trial = run.exported.trial
    tags = {"study": folder.name, "arm": trial.arm, "level": trial.level.value, "trial": trial.name}
    level = f"{trial.task.kind} at the explanation level {trial.level.value}"
    arm = "" if trial.arm == trial.level.value else f", arm {trial.arm}"
    model = ModelToRegister(
        folder=run.folder,
        name=folder.name,
        run=run.exported.run,
        description=f"{run.exported.run} of the study {folder.name}: {level}{arm}, test accuracy {accuracy}",
        tags={f"showhow.{name}": value for name, value in (tags | {"test_accuracy": accuracy}).items()},
        questions=[run.example],
        asked_by=Path(__file__).parents[1] / "exports" / "served_replies.py",
    )
    registered = register(uri, folder.path, model)
    return registered.address, registered.is_new
