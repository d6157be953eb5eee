"""Computes a study's answer from its runs' outcomes: per setting a row per arm, comparisons, a conclusion. Pure.

It decides which arms are compared. The trial that represents an arm is chosen in rows.py; intervals and the rules for
claims are in claims/, the sentences in conclusion.py. The order of the outcomes does not matter.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from showhow.errors import UserError
from showhow.evidence.claims.accuracy import (
    closed_learned,
    holm,
    judge,
    seeds_for_difference,
    seeds_for_shares,
    variance_of_seeds,
    welch,
)
from showhow.evidence.claims.intervals import Floats, estimate
from showhow.evidence.claims.speed import compare_speed
from showhow.evidence.conclusion import conclude
from showhow.evidence.design import Design
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import ArmRow, Comparison, Setting, SpeedComparison, StudyResult, Verdict
from showhow.evidence.rows import Mark, rows_of
from showhow.study.variants import EXPLANATION
from showhow.tasks.explain import Level

MARGIN = 0.05  # accuracies closer than this are the same for practical purposes


@dataclass(frozen=True)
class _Found:
    """The findings in one setting."""

    rows: tuple[ArmRow, ...]
    comparisons: tuple[Comparison, ...]
    speed: tuple[SpeedComparison, ...]


def compare(
    outcomes: Sequence[RunOutcome],
    chance: float,
    baseline: float | None,
    solved_at: float = 0.95,
    design: Design | None = None,
) -> StudyResult:
    """Return the answer of a study. Each arm is represented by its best trial in each setting (see rows.py).
    design: what is compared; without one, explanation levels.

    Raises UserError where runs of a setting were graded on different numbers of questions, and ValueError where one
    run has two outcomes."""
    design = design or Design()
    mark = Mark(max(chance, baseline or 0.0), solved_at)
    settings = design.settings_with(outcomes)
    found = [_within(setting, outcomes, design, mark) for setting in settings]
    result = StudyResult(
        chance=chance,
        baseline=baseline,
        solved_at=solved_at,
        margin=MARGIN,
        by=design.by,
        settings=settings,
        unit=design.unit,
        shows_spending=design.shows_spending,
        rows=tuple(row for part in found for row in part.rows),
        comparisons=tuple(one for part in found for one in part.comparisons),
        speed=tuple(one for part in found for one in part.speed),
        budget_saved=_budget_saved(outcomes),
    )
    return conclude(result)


def _within(setting: Setting, outcomes: Sequence[RunOutcome], design: Design, mark: Mark) -> _Found:
    """Compare the arms in one setting."""
    inside = [outcome for outcome in outcomes if outcome.setting == setting]
    _check(inside)
    rows, replicates = rows_of(inside, design.arms_of(inside), mark, design.is_timed)
    comparisons = _compare_pairs([row for row in rows if row.accuracy is not None], replicates)
    return _Found(rows, comparisons, compare_speed(rows, comparisons))


def _check(outcomes: Sequence[RunOutcome]) -> None:
    repeated = [run for run, count in Counter((o.arm, o.trial, o.seed) for o in outcomes).items() if count > 1]
    if repeated:
        raise ValueError(f"two outcomes for one run (arm, trial, seed): {sorted(repeated)[0]}")
    counts = sorted({len(outcome.grades) for outcome in outcomes if outcome.grades is not None})
    if len(counts) > 1 or counts == [0]:
        raise UserError(
            f"The runs were graded on {' and '.join(map(str, counts))} test questions; all compared runs must answer "
            "the same ones, at least one. Repeat the runs that were graded on another test set."
        )


def _compare_pairs(rows: list[ArmRow], replicates: dict[str, Floats]) -> tuple[Comparison, ...]:
    pairs = list(combinations(rows, 2))
    p_values = [_welch(first, second) for first, second in pairs]
    tested = iter(holm([p_value for p_value in p_values if p_value is not None]))
    adjusted = [None if p_value is None else next(tested) for p_value in p_values]
    learned = _p_learned(rows)
    compared = []
    for (first, second), p_value, p_adjusted in zip(pairs, p_values, adjusted, strict=True):
        between = replicates[first.arm] - replicates[second.arm]
        difference = estimate(fmean(first.accuracies) - fmean(second.accuracies), between)
        seeds = min(len(first.seeds), len(second.seeds))
        p_learned = None if _share(first) == _share(second) else learned[frozenset((first.arm, second.arm))]
        judged = judge(difference, p_adjusted, p_learned, seeds, MARGIN)
        verdict = _not_by_survivors(judged, first, second)
        needed = _seeds_needed(first, second, len(pairs)) if judged == "unclear" else None
        compared.append(
            Comparison(
                first=first.arm,
                second=second.arm,
                setting=first.setting,
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


def _not_by_survivors(verdict: Verdict, first: ArmRow, second: ArmRow) -> Verdict:
    """Return the verdict, or `unclear` where it favours an arm with failed, hence missing, seeds."""
    favours_first, favours_second = verdict in ("better", "same"), verdict in ("worse", "same")
    if (favours_first and first.failed_seeds) or (favours_second and second.failed_seeds):
        return "unclear"
    return verdict


def _p_learned(rows: list[ArmRow]) -> dict[frozenset[str], float]:
    """Return each pair's adjusted p. The arms are ordered beforehand: without explanation first, then controls, which
    explain nothing, then the others in the study's order, from the least to the most explained."""
    bare = [row for row in rows if _is_bare(row)]
    controls = [row for row in rows if row.is_control and not _is_bare(row)]
    others = [row for row in rows if not row.is_control and not _is_bare(row)]
    counts = {row.arm: (row.learned or 0, len(row.seeds)) for row in (*bare, *controls, *others)}
    return {frozenset(pair): p_value for pair, p_value in closed_learned(counts).items()}


def _is_bare(row: ArmRow) -> bool:
    return row.values.get(EXPLANATION) == Level.NONE.value


def _share(row: ArmRow) -> float:
    return (row.learned or 0) / len(row.seeds)


def _variances(first: ArmRow, second: ArmRow) -> tuple[float, float]:
    return variance_of_seeds(first.accuracies, first.questions), variance_of_seeds(second.accuracies, second.questions)


def _welch(first: ArmRow, second: ArmRow) -> float | None:
    difference = fmean(first.accuracies) - fmean(second.accuracies)
    return welch(difference, _variances(first, second), (len(first.seeds), len(second.seeds)))


def _seeds_needed(first: ArmRow, second: ArmRow, pairs: int) -> int | None:
    """Return the seeds per arm that would show the observed difference: more than there were, as those did not."""
    difference = fmean(first.accuracies) - fmean(second.accuracies)
    needed = [seeds_for_difference(difference, _variances(first, second), pairs)]
    if _share(first) != _share(second):
        needed.append(seeds_for_shares(_share(first), _share(second), pairs))
    enough = [seeds for seeds in needed if seeds is not None]
    if len(enough) < len(needed):
        return None
    return max(*enough, min(len(first.seeds), len(second.seeds)) + 1)


def _budget_saved(outcomes: Sequence[RunOutcome]) -> float:
    """Return the share of the trials' total budgets, all seeds, that was saved: by stopped runs, by seeds that stopped
    trials never started, and by runs that reached their goal. Failed and interrupted runs saved nothing."""
    seeds = len({outcome.seed for outcome in outcomes})
    trials: dict[tuple[str, str], list[RunOutcome]] = {}
    for outcome in outcomes:
        trials.setdefault((outcome.arm, outcome.trial), []).append(outcome)
    budget = saved = 0.0
    for runs in trials.values():
        budget += seeds * runs[0].budget
        # A run that used up its budget may leave less than a batch of it.
        ended = [run for run in runs if run.status == "stopped" or run.reached_goal]
        saved += sum(max(0.0, run.budget - run.spent) for run in ended)
        if any(run.status == "stopped" for run in runs):
            saved += (seeds - len(runs)) * runs[0].budget
    return saved / budget if budget else 0.0
