"""The verdict on any table of graded answers, from any trainer: the same comparison as for a study. Pure.

The format of a table is checked in graded_table.py.
"""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from showhow.errors import UserError
from showhow.evidence.compare import compare
from showhow.evidence.design import Design
from showhow.evidence.graded_table import GradedRun, read_table
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import Setting, StudyResult
from showhow.evidence.wording import counted
from showhow.sections.arm import Arm

if TYPE_CHECKING:
    import pandas


def verdict(
    frame: "pandas.DataFrame | Mapping[str, Sequence[Any]]",
    chance: float = 0.0,
    baseline: float | None = None,
    solved_at: float = 0.95,
) -> StudyResult:
    """Judge a table of graded answers: a pandas frame, or columns by name; a row per run and question.

    Columns: arm (what is compared), seed (whole number), question (text or number: its identity, so that the order of
    the rows changes nothing), right (true or false, 1 or 0). A run is one arm with one seed.
    Optional columns: setting (arms are compared within each, never across), trial (the hyperparameters of the run),
    is_control (the arm is a control, never recommended); and the same in all rows of a run: validation (its accuracy on
    validation questions, a share), examples, tokens, flops (what its training spent). Other columns are ignored.

    chance: the share right by uniform guessing; baseline: by always giving the commonest answer, where that is known;
    solved_at: the least accuracy of a run that solved the task. An arm with several trials is represented by the one
    with the best validation accuracy; without that column it is chosen by the test questions themselves, which is
    optimistic; the result then has a note.

    Raises UserError, with column, row (the first is 1) and what is allowed, for missing columns, invalid values,
    a question graded twice in a run, and runs of a setting that were graded on different questions."""
    _check_marks(chance, baseline, solved_at)
    runs = read_table(frame)
    outcomes = [_outcome(run) for run in runs]
    arms: dict[str, Arm] = {}
    for run in runs:
        arms.setdefault(run.arm, Arm(name=run.arm, values={"arm": run.arm}, is_control=run.is_control))
    design = Design(
        by=("arm",),
        arms=tuple(arms.values()),
        settings=tuple(_setting(name) for name in dict.fromkeys(run.setting for run in runs)),
        shows_spending=True,
        is_timed=False,
    )
    result = compare(outcomes, chance, baseline, solved_at, design)
    return result.model_copy(update={"notes": tuple(_chosen_by_test(runs))})


def _check_marks(chance: float, baseline: float | None, solved_at: float) -> None:
    for name, value in (("chance", chance), ("baseline", baseline), ("solved_at", solved_at)):
        if value is None and name == "baseline":
            continue
        if not isinstance(value, Real) or not 0.0 <= value <= 1.0:
            raise UserError(f"{name} is a share of the questions, from 0 to 1; got {value!r}")
    guessing = max(chance, baseline or 0.0)
    if solved_at <= guessing:
        raise UserError(f"solved_at = {solved_at:g} must lie above what guessing gives, {guessing:g}")


def _setting(name: str | None) -> Setting:
    return {} if name is None else {"setting": name}


def _outcome(run: GradedRun) -> RunOutcome:
    accuracy = sum(run.grades) / len(run.grades)
    return RunOutcome(
        arm=run.arm,
        setting=_setting(run.setting),
        is_control=run.is_control,
        trial=run.trial,
        seed=run.seed,
        params={},
        status="finished",
        selection=run.figures.get("validation", accuracy),
        grades=run.grades,
        examples=None if "examples" not in run.figures else round(run.figures["examples"]),
        tokens=run.figures.get("tokens"),
        flops=run.figures.get("flops"),
    )


def _chosen_by_test(runs: Sequence[GradedRun]) -> list[str]:
    """Return a note for each arm whose best trial had to be chosen by the test questions."""
    trials: dict[tuple[str | None, str], set[str]] = {}
    for run in runs:
        if "validation" not in run.figures:
            trials.setdefault((run.setting, run.arm), set()).add(run.trial)
    notes = []
    for (setting, arm), names in trials.items():
        if len(names) > 1:
            place = f"{setting}, {arm}" if setting is not None else arm
            notes.append(
                f"{place}: the best of {counted(len(names), 'trial')}, chosen by the test questions themselves, so its "
                "accuracy is optimistic; a column validation says by what to choose"
            )
    return notes
