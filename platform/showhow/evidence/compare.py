"""From the outcomes of a study's runs to its answer: a row per level, comparisons, a conclusion. Pure.

It owns which trial speaks for a level and what is counted; intervals are in intervals.py, the rules of claiming in
claims.py, the sentences in conclusion.py. The order of the outcomes changes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from showhow.errors import UserError
from showhow.evidence.claims import (
    closed_learned,
    holm,
    judge,
    seeds_for_difference,
    seeds_for_shares,
    variance_of_seeds,
    welch,
)
from showhow.evidence.conclusion import conclude
from showhow.evidence.intervals import Floats, bootstrap_accuracies, bootstrap_seeds, estimate
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import Comparison, Estimate, LevelRow, StudyResult, Verdict
from showhow.evidence.settings import Setting
from showhow.evidence.speed import compare_speed
from showhow.tasks.explain import Level

MARGIN = 0.05  # accuracies closer than this are the same for practical purposes
CONTROLS = frozenset(level.value for level in Level if level.is_control)


@dataclass(frozen=True)
class _Mark:
    """What the accuracies are measured against."""

    guessing: float
    solved_at: float

    @property
    def learned_at(self) -> float:
        """Halfway from guessing to solved: runs are all or nothing, and this tells the two apart."""
        return (self.guessing + self.solved_at) / 2


def compare(
    outcomes: Sequence[RunOutcome],
    chance: float,
    baseline: float,
    solved_at: float = 0.95,
    level_order: Sequence[str] = tuple(Level),
    settings: Sequence[Setting] = (),
) -> StudyResult:
    """Return the answer of a study. Levels that `level_order` does not name come last, by name. Each level is shown by
    its best trial (see `best_trial`), and so at each of the settings that are compared beside the levels (settings.py).

    Raises UserError where runs were graded on different numbers of questions, and ValueError where one run has two
    outcomes."""
    _check(outcomes)
    known = [str(level) for level in level_order]
    levels = sorted(
        {outcome.level for outcome in outcomes},
        key=lambda level: (known.index(level) if level in known else len(known), level),
    )
    mark = _Mark(max(chance, baseline), solved_at)
    rows, replicates = _rows(outcomes, levels, mark)
    comparisons = _compare_pairs([row for row in rows if row.accuracy is not None], replicates)
    result = StudyResult(
        chance=chance,
        baseline=baseline,
        solved_at=solved_at,
        margin=MARGIN,
        rows=rows,
        by_setting=tuple(row for setting in settings for row in _rows_at(setting, outcomes, levels, mark)),
        comparisons=comparisons,
        speed=compare_speed(rows, comparisons),
        examples_saved=_examples_saved(outcomes),
    )
    return conclude(result)


def _rows(
    outcomes: Sequence[RunOutcome], levels: Sequence[str], mark: _Mark
) -> tuple[tuple[LevelRow, ...], dict[str, Floats]]:
    """Return a row for each of the levels that has outcomes, and the replicates of those that can be compared."""
    by_level = {level: [outcome for outcome in outcomes if outcome.level == level] for level in levels}
    chosen = {level: best_trial(runs) for level, runs in by_level.items() if runs}
    replicates = bootstrap_accuracies({level: _grades(runs) for level, runs in chosen.items() if runs})
    return tuple(_row(level, by_level[level], runs, replicates, mark) for level, runs in chosen.items()), replicates


def _rows_at(setting: Setting, outcomes: Sequence[RunOutcome], levels: Sequence[str], mark: _Mark) -> list[LevelRow]:
    """Return the rows of the runs that have a setting."""
    there = [run for run in outcomes if all(run.params.get(axis) == value for axis, value in setting.items())]
    return [row.model_copy(update={"setting": setting}) for row in _rows(there, levels, mark)[0]]


def best_trial(outcomes: Iterable[RunOutcome]) -> list[RunOutcome]:
    """Return the runs of the trial that speaks for a level, by seed; empty where no trial may.

    A trial is complete when all its runs have grades and no other trial that has them ran on more seeds. Of the
    complete trials the one with the highest mean validation accuracy is taken; then the one that solved the task with
    more seeds, then after fewer examples, then the first by name. Trials of which some seeds failed are looked at
    only where none is complete: to drop what failed and keep what survived is a bias, so the row then says which
    seeds are missing. Trials of which a run was stopped or interrupted never speak for a level. Choosing the best of
    several by three seeds is optimistic also on test questions, since the seeds are the same.
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


def _check(outcomes: Sequence[RunOutcome]) -> None:
    twice = [run for run, count in Counter((o.level, o.trial, o.seed) for o in outcomes).items() if count > 1]
    if twice:
        raise ValueError(f"two outcomes for one run (level, trial, seed): {sorted(twice)[0]}")
    counts = sorted({len(outcome.grades) for outcome in outcomes if outcome.grades is not None})
    if len(counts) > 1 or counts == [0]:
        raise UserError(
            f"The runs were graded on {' and '.join(map(str, counts))} test questions; all runs of a study must answer "
            "the same ones, at least one. Run those again that were graded on another test set."
        )


def _grades(runs: list[RunOutcome]) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    """Return the grades of a trial's runs, shape (seeds, questions)."""
    return np.array([run.grades for run in runs], dtype=np.bool_)


def _row(
    level: str, outcomes: list[RunOutcome], chosen: list[RunOutcome], replicates: dict[str, Floats], mark: _Mark
) -> LevelRow:
    reasons = Counter(run.reason for run in outcomes if run.status == "failed" and run.reason)
    row = LevelRow(
        level=level,
        is_control=level in CONTROLS,
        runs=len(outcomes),
        stopped=sum(run.status == "stopped" and run.grades is None for run in outcomes),
        failed=sum(run.status == "failed" for run in outcomes),
        interrupted=sum(run.status == "interrupted" for run in outcomes),
        failure=min(reasons, key=lambda reason: (-reasons[reason], reason), default=None),
    )
    if not chosen:
        return row
    trial = chosen[0].trial
    failed = tuple(sorted(run.seed for run in outcomes if run.trial == trial and run.grades is None))
    shown = _measure(level, chosen, replicates[level], mark)
    return row.model_copy(update={**shown, "trial": trial, "failed_seeds": failed})


def _measure(level: str, runs: list[RunOutcome], replicates: Floats, mark: _Mark) -> dict[str, object]:
    """Return the figures of a level's best trial, by the names of LevelRow."""
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
        "examples": tuple(run.examples for run in runs),
        "examples_until_solved": tuple(run.examples_until_solved for run in runs),
        "tokens_per_reply": _mean(run.tokens_per_reply for run in runs),
        "seconds": fmean(run.seconds for run in runs),
        "splits": _split_estimates(level, runs),
        "at_chance": learned == 0 and accuracy.low is not None and accuracy.low <= mark.guessing,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what was measured; None where nothing was."""
    measured = [value for value in values if value is not None]
    return fmean(measured) if measured else None


def _split_estimates(level: str, runs: list[RunOutcome]) -> dict[str, Estimate]:
    """Return the accuracy on each further split that all the runs were evaluated on, with an interval over seeds."""
    names = sorted(set.intersection(*(set(run.splits) for run in runs)))
    estimates = {}
    for name in names:
        values = [run.splits[name] for run in runs]
        alone = Estimate(mean=values[0], low=None, high=None)
        estimates[name] = alone if len(values) == 1 else estimate(fmean(values), bootstrap_seeds(level, values))
    return estimates


def _compare_pairs(rows: list[LevelRow], replicates: dict[str, Floats]) -> tuple[Comparison, ...]:
    pairs = list(combinations(rows, 2))
    p_values = [_welch(first, second) for first, second in pairs]
    tested = iter(holm([p_value for p_value in p_values if p_value is not None]))
    adjusted = [None if p_value is None else next(tested) for p_value in p_values]
    learned = _p_learned(rows)
    compared = []
    for (first, second), p_value, p_adjusted in zip(pairs, p_values, adjusted, strict=True):
        between = replicates[first.level] - replicates[second.level]
        difference = estimate(fmean(first.accuracies) - fmean(second.accuracies), between)
        seeds = min(len(first.seeds), len(second.seeds))
        p_learned = None if _share(first) == _share(second) else learned[frozenset((first.level, second.level))]
        judged = judge(difference, p_adjusted, p_learned, seeds, MARGIN)
        verdict = _not_by_survivors(judged, first, second)
        needed = _seeds_needed(first, second, len(pairs)) if judged == "unclear" else None
        compared.append(
            Comparison(
                first=first.level,
                second=second.level,
                difference=difference,
                p_value=p_value,
                p_adjusted=p_adjusted,
                p_learned=p_learned,
                verdict=verdict,
                seeds=seeds,
                seeds_needed=needed,
            )
        )
    return tuple(compared)


def _not_by_survivors(verdict: Verdict, first: LevelRow, second: LevelRow) -> Verdict:
    """Return the verdict, or `unclear` where it favours a level of which some seeds failed and are missing."""
    favours_first, favours_second = verdict in ("better", "same"), verdict in ("worse", "same")
    if (favours_first and first.failed_seeds) or (favours_second and second.failed_seeds):
        return "unclear"
    return verdict


def _p_learned(rows: list[LevelRow]) -> dict[frozenset[str], float]:
    """Return each pair's adjusted p, the levels ordered from least to most explained: a control explains nothing."""
    bare = [row for row in rows if row.level == Level.NONE]
    controls = [row for row in rows if row.is_control]
    explained = [row for row in rows if not row.is_control and row.level != Level.NONE]
    counts = {row.level: (row.learned or 0, len(row.seeds)) for row in (*bare, *controls, *explained)}
    return {frozenset(pair): p_value for pair, p_value in closed_learned(counts).items()}


def _share(row: LevelRow) -> float:
    return (row.learned or 0) / len(row.seeds)


def _variances(first: LevelRow, second: LevelRow) -> tuple[float, float]:
    return variance_of_seeds(first.accuracies, first.questions), variance_of_seeds(second.accuracies, second.questions)


def _welch(first: LevelRow, second: LevelRow) -> float | None:
    difference = fmean(first.accuracies) - fmean(second.accuracies)
    return welch(difference, _variances(first, second), (len(first.seeds), len(second.seeds)))


def _seeds_needed(first: LevelRow, second: LevelRow, pairs: int) -> int | None:
    """Return the seeds per level that would show the observed difference; more than there were, since they did
    not."""
    difference = fmean(first.accuracies) - fmean(second.accuracies)
    needed = [seeds_for_difference(difference, _variances(first, second), pairs)]
    if _share(first) != _share(second):
        needed.append(seeds_for_shares(_share(first), _share(second), pairs))
    enough = [seeds for seeds in needed if seeds is not None]
    if len(enough) < len(needed):
        return None
    return max(*enough, min(len(first.seeds), len(second.seeds)) + 1)


def _examples_saved(outcomes: Sequence[RunOutcome]) -> float:
    """Return the share of the trials' whole budgets, all seeds, that was spared: by stopped runs, by seeds that stopped
    trials never began, and by runs that reached their goal. What failed or was interrupted saved nothing."""
    seeds = len({outcome.seed for outcome in outcomes})
    trials: dict[tuple[str, str], list[RunOutcome]] = {}
    for outcome in outcomes:
        trials.setdefault((outcome.level, outcome.trial), []).append(outcome)
    budget = saved = 0
    for runs in trials.values():
        budget += seeds * runs[0].budget_examples
        ended = [run for run in runs if run.status == "stopped" or run.grades is not None]
        saved += sum(max(0, run.budget_examples - run.examples) for run in ended)
        if any(run.status == "stopped" for run in runs):
            saved += (seeds - len(runs)) * runs[0].budget_examples
    return saved / budget if budget else 0.0
