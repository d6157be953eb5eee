"""Makes the row of each arm: selects the trial that represents it, and computes its figures. Pure.

Intervals are in claims/intervals.py. The order of the outcomes does not matter.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from showhow.evidence.claims.intervals import Floats, bootstrap_accuracies, bootstrap_seeds, estimate
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import ArmRow, Estimate
from showhow.sections.arm import Arm


@dataclass(frozen=True)
class Mark:
    """What the accuracies are measured against."""

    guessing: float
    solved_at: float

    @property
    def learned_at(self) -> float:
        """Halfway from guessing to solved: runs are all or nothing, and this separates the two."""
        return (self.guessing + self.solved_at) / 2


def rows_of(
    outcomes: Sequence[RunOutcome], arms: Sequence[Arm], mark: Mark, is_timed: bool
) -> tuple[tuple[ArmRow, ...], dict[str, Floats]]:
    """Return a row for each arm that has outcomes, and the replicates of each comparable arm by its name. The outcomes
    are those of one setting; is_timed: they record when a run solved the task."""
    by_arm = {arm.name: [outcome for outcome in outcomes if outcome.arm == arm.name] for arm in arms}
    chosen = {name: best_trial(runs) for name, runs in by_arm.items() if runs}
    replicates = bootstrap_accuracies({name: _grades(runs) for name, runs in chosen.items() if runs})
    rows = []
    for arm in arms:
        if arm.name in chosen:
            row = _counts(arm, by_arm[arm.name])
            if chosen[arm.name]:
                figures = _measure(chosen[arm.name], replicates[arm.name], mark)
                row = row.model_copy(update=figures | _missing(by_arm[arm.name], chosen[arm.name]))
            rows.append(row if is_timed else row.model_copy(update={"examples_until_solved": ()}))
    return tuple(rows), replicates


def best_trial(outcomes: Iterable[RunOutcome]) -> list[RunOutcome]:
    """Return the runs of the trial that represents an arm, by seed; empty where no trial can.

    A trial is complete when all its runs have grades and no other such trial ran on more seeds. Of the complete trials
    the one with the highest mean validation accuracy is chosen; ties go to the one that solved the task with more
    seeds, then after fewer examples, then to the first by name. Trials with failed seeds are considered only where none
    is complete: dropping failed seeds is a bias, so the row then lists them. Trials with a stopped or interrupted run
    never represent an arm. Choosing the best of several by three seeds is optimistic also on test questions, since the
    seeds are the same.
    """
    trials: dict[str, list[RunOutcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.trial, outcome.seed)):
        trials.setdefault(outcome.trial, []).append(outcome)
    complete = [runs for runs in trials.values() if all(run.grades is not None for run in runs)]
    partly = [runs for runs in trials.values() if all(run.grades is not None or run.status == "failed" for run in runs)]
    candidates = [[run for run in runs if run.grades is not None] for runs in complete or partly]
    most_seeds = max((len(runs) for runs in candidates), default=0)
    if most_seeds == 0:
        return []
    return min((runs for runs in candidates if len(runs) == most_seeds), key=_rank)


def _rank(runs: list[RunOutcome]) -> tuple[float, int, float, str]:
    """Return the sort key of a trial, the best first."""
    selections = [run.selection for run in runs if run.selection is not None]
    solved_after = [run.examples_until_solved for run in runs if run.examples_until_solved is not None]
    accuracy = fmean(selections) if len(selections) == len(runs) else -1.0
    return (-round(accuracy, 9), -len(solved_after), fmean(solved_after or [0]), runs[0].trial)


def _grades(runs: list[RunOutcome]) -> NDArray[np.bool_]:
    """Return the grades of a trial's runs, shape (seeds, questions)."""
    return np.array([run.grades for run in runs], dtype=np.bool_)


def _counts(arm: Arm, outcomes: Sequence[RunOutcome]) -> ArmRow:
    """Return the row of an arm without the figures of a trial: how its runs ended."""
    reasons = Counter(run.reason for run in outcomes if run.status == "failed" and run.reason)
    return ArmRow(
        arm=arm.name,
        values=dict(arm.values),
        setting=outcomes[0].setting,
        is_control=arm.is_control,
        runs=len(outcomes),
        stopped=sum(run.status == "stopped" and run.grades is None for run in outcomes),
        failed=sum(run.status == "failed" for run in outcomes),
        interrupted=sum(run.status == "interrupted" for run in outcomes),
        failure=min(reasons, key=lambda reason: (-reasons[reason], reason), default=None),
    )


def _missing(outcomes: Sequence[RunOutcome], chosen: Sequence[RunOutcome]) -> dict[str, object]:
    trial = chosen[0].trial
    failed = sorted(run.seed for run in outcomes if run.trial == trial and run.grades is None)
    return {"trial": trial, "failed_seeds": tuple(failed)}


def _measure(runs: list[RunOutcome], replicates: Floats, mark: Mark) -> dict[str, object]:
    """Return the figures of an arm's best trial, by the names of ArmRow."""
    accuracies = tuple(float(share) for share in _grades(runs).mean(axis=1))
    accuracy = estimate(fmean(accuracies), replicates)
    learned = sum(share >= mark.learned_at for share in accuracies)
    return {
        "params": dict(runs[0].params),
        "seeds": tuple(run.seed for run in runs),
        "questions": len(runs[0].grades or ()),
        "accuracy": accuracy,
        "accuracies": accuracies,
        "solved": sum(share >= mark.solved_at for share in accuracies),
        "learned": learned,
        "steps_right": _mean(run.steps_right for run in runs),
        "examples": () if any(run.examples is None for run in runs) else tuple(run.examples for run in runs),
        "tokens": _mean(run.tokens for run in runs),
        "flops": _mean(run.flops for run in runs),
        "examples_until_solved": tuple(run.examples_until_solved for run in runs),
        "tokens_per_reply": _mean(run.tokens_per_reply for run in runs),
        "seconds": fmean(run.seconds for run in runs) or None,
        "splits": _split_estimates(runs),
        "at_chance": learned == 0 and accuracy.low is not None and accuracy.low <= mark.guessing,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what was measured; None where nothing was."""
    measured = [value for value in values if value is not None]
    return fmean(measured) if measured else None


def _split_estimates(runs: list[RunOutcome]) -> dict[str, Estimate]:
    """Return the accuracy on each further split that all the runs were evaluated on, with an interval over seeds."""
    names = sorted(set.intersection(*(set(run.splits) for run in runs)))
    estimates = {}
    for name in names:
        values = [run.splits[name] for run in runs]
        alone = Estimate(mean=values[0], low=None, high=None)
        estimates[name] = alone if len(values) == 1 else estimate(fmean(values), bootstrap_seeds(runs[0].arm, values))
    return estimates
