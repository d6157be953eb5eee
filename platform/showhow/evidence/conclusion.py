"""Writes the answer in plain sentences and recommends an arm, for each setting separately. Pure.

Three kinds of sentence: what happened with each arm (counts of seeds, no inference), what that supports (only
verdicts of the comparisons), and what these seeds cannot tell. An arm is recommended where it is the cheapest of
several that are the same as the best, or better than every other arm. A control is never recommended.
"""

from collections.abc import Callable

from showhow.evidence.claims.accuracy import FEWEST_SEEDS
from showhow.evidence.naming import Naming, capital, names_of
from showhow.evidence.result import ArmRow, Recommendation, StudyResult
from showhow.evidence.settings import settings_in_words
from showhow.evidence.wording import listed, number_word, share


def conclude(result: StudyResult) -> StudyResult:
    """Return the result with its conclusion and recommendations. With several settings the sentences of each begin with
    its name; a setting without an ended run has no sentence, unless no setting has one."""
    sentences: list[str] = []
    picks: list[Recommendation] = []
    for setting, place in zip(result.settings, settings_in_words(result.settings), strict=True):
        part = result.within(setting)
        if result.has_settings and not part.rows:
            continue
        found, pick = _conclude(part)
        if result.has_settings:
            found[0] = f"{capital(place)}: {found[0][0].lower()}{found[0][1:]}"
        sentences += found
        picks += [pick] if pick else []
    nothing = [] if sentences else [_nothing_compared(result, names_of(result))]
    return result.model_copy(update={"conclusion": (*sentences, *nothing), "recommendations": tuple(picks)})


def _conclude(result: StudyResult) -> tuple[list[str], Recommendation | None]:
    """Return the sentences on one setting, and what they recommend."""
    compared, names = result.compared, names_of(result)
    if not compared:
        return [_nothing_compared(result, names)], None
    found: list[str] = [_what_happened(result, names)]
    best = _best(result, names)
    pick = None
    if len(compared) == 1:
        found.append(_alone(result, names, compared[0]))
    elif not all(row.at_chance for row in compared):
        supported, pick = _what_follows(result, names, best)
        found += supported
    found += _left_out(result, names)
    if pick is None or pick.trial is None:
        return found, None
    return found, Recommendation(arm=pick.arm, setting=pick.setting, trial=pick.trial, params=pick.params)


def _candidates(result: StudyResult) -> list[ArmRow]:
    return [row for row in result.compared if not row.is_control]


def _best(result: StudyResult, names: Naming) -> ArmRow | None:
    """Return the arm of highest accuracy, controls excluded; among equal ones the cheapest.

    Arms with failed or too few seeds are considered only where there are no others: lucky runs would lead.
    """
    rows = _candidates(result)
    sound = [row for row in rows if not row.failed_seeds and len(row.seeds) >= FEWEST_SEEDS]
    return min(sound or rows, key=lambda row: (-round(_mean(row), 9), names.cost(row)), default=None)


def _mean(row: ArmRow) -> float:
    return row.accuracy.mean if row.accuracy else 0.0


def _seeds(row: ArmRow) -> int:
    """Return how many seeds the trial was run with; a failed one did not solve the task."""
    return len(row.seeds) + len(row.failed_seeds)


def _nothing_compared(result: StudyResult, names: Naming) -> str:
    runs = sum(row.runs for row in result.rows)
    if runs == 0:
        return "No run has ended yet: there is nothing to compare."
    if runs == sum(row.failed for row in result.rows):
        reason = next((row.failure for row in result.rows if row.failure), None)
        return f"Every run failed{f' ({reason})' if reason else ''}: there is nothing to compare."
    return (
        f"No {names.one} has a trial whose runs all used up their budget or solved the task: there is nothing to "
        "compare yet."
    )


def _what_happened(result: StudyResult, names: Naming) -> str:
    """Return one sentence that groups the arms by what their seeds did."""
    rows = result.compared
    if all(row.at_chance for row in rows):
        with_what = names.listed(rows, "or")
        return f"Nothing learned the task: with {with_what} the model does no better than guessing."
    alone = max(len(row.seeds) for row in rows) == 1
    learns = "learned the task in its only run" if alone else "learns the task with every seed"
    groups: tuple[tuple[Callable[[ArmRow], bool], str], ...] = (
        (lambda row: row.solved == _seeds(row), learns),
        (lambda row: bool(row.at_chance), "does no better than guessing"),
        (lambda row: 0 < (row.solved or 0) < _seeds(row), ""),
        (lambda row: not row.solved and not row.at_chance, ""),
    )
    clauses: list[str] = []
    for belongs, happened in groups:
        members = [row for row in rows if belongs(row)]
        if members:
            subject = "the model" if happened or not members[0].solved else "the outcome"
            who = f"{names.listed(members, 'or')} it" if clauses else f"{names.in_full(members, 'or')} {subject}"
            clauses.append(f"with {who} {happened or _by_arm(members)}")
    return capital("; ".join(clauses)) + "."


def _alone(result: StudyResult, names: Naming, row: ArmRow) -> str:
    if len(result.rows) == 1:
        return f"There is only one {names.one}, so nothing can be said about others."
    return f"Only {names.of(row)} has a trial to compare, so nothing can be said about the other {names.several}."


def _by_arm(rows: list[ArmRow]) -> str:
    """Return what arms between chance and solved reached: how many seeds solved it, or the mean accuracy."""
    if rows[0].solved:
        counts = [f"{row.solved} of {_seeds(row)}" for row in rows]
        same = len(rows) > 1 and len(set(counts)) == 1
        return f"depends on the seed ({f'{counts[0]} each' if same else listed(counts, 'and')} solve the task)"
    means = [share(_mean(row)) for row in sorted(rows, key=_mean)]
    return f"reaches {means[0]}" + (f" to {means[-1]}" if means[0] != means[-1] else "")


def _what_follows(result: StudyResult, names: Naming, best: ArmRow | None) -> tuple[list[str], ArmRow | None]:
    """Return what the verdicts support, what they leave open, and the arm to recommend."""
    seeds = max(comparison.seeds for comparison in result.comparisons)
    if seeds < FEWEST_SEEDS:
        subject = f"{number_word(seeds)} seed{'s' if seeds > 1 else ''}"
        return [
            f"{capital(subject)} cannot tell {names.several} apart: at least {number_word(FEWEST_SEEDS)} can."
        ], None
    if best is None:
        return [f"Only controls have a trial to compare, so nothing can be said about {names.subject}."], None
    sentences = _controls(result, names, best)
    verdict, pick = _verdict(result, names, best)
    sentences += verdict
    sentences += _open(result, names, pick or best)
    return sentences, pick


def _verdict(result: StudyResult, names: Naming, best: ArmRow) -> tuple[list[str], ArmRow | None]:
    """Return the sentence on the arms that are not controls, and the arm that it recommends: none where equal arms
    have no known cheapest."""
    rivals = [row for row in _candidates(result) if row.arm != best.arm]
    equals = [best, *(row for row in rivals if result.verdict(best.arm, row.arm) == "same")]
    beaten = [row for row in rivals if result.verdict(best.arm, row.arm) == "better"]
    pick = names.cheapest(equals)
    if rivals and len(equals) == len(rivals) + 1:
        same = f"No difference: {names.listed(_candidates(result), 'and')} do equally well, within {result.margin:g}"
        return [f"{same}; {names.of(pick)} is the cheapest." if pick else f"{same}."], pick
    if len(equals) > 1 and pick is None:
        in_order = [row for row in _candidates(result) if row in equals]
        return [f"{capital(names.listed(in_order, 'and'))} do equally well, and none does better."], None
    if len(equals) > 1 and pick is not None:
        return [_cheapest(names, pick)], pick
    if not beaten:
        return [], None
    subject = "no explanation at all" if names.is_bare(best) else names.of(best)
    over = names.listed(beaten, "and")
    return [f"{capital(subject)} does better than {over}."], best if len(beaten) == len(rivals) else None


def _cheapest(names: Naming, pick: ArmRow) -> str:
    if names.is_bare(pick):
        return "No explanation is needed: none does as well as the best."
    return f"{capital(names.of(pick))} is the cheapest {names.noun} that is as good as the best."


def _controls(result: StudyResult, names: Naming, best: ArmRow) -> list[str]:
    """Return a sentence where the best arm beats every control, or a control does as well or better."""
    rows = [row for row in result.compared if row.is_control]
    if rows and all(result.verdict(best.arm, row.arm) == "better" for row in rows):
        so = ", so it is the explanation that helps, and not merely its tokens" if names.are_levels else ""
        return [f"{capital(names.of(best))} does better than {names.listed(rows, 'and')}{so}."]
    as_good = [row for row in rows if result.verdict(row.arm, best.arm) in ("same", "better")]
    if not as_good or names.is_bare(best):
        return []
    subject = f"{names.listed(as_good, 'and')} {'do' if len(as_good) > 1 else 'does'}"
    return [f"{capital(subject)} as well as {names.of(best)}, {_by_control(result, names, best)}."]


def _by_control(result: StudyResult, names: Naming, best: ArmRow) -> str:
    """Return what follows from a control that does as well as the best arm."""
    if not names.are_levels:
        return f"so nothing here shows that what sets {names.of(best)} apart helps"
    bare = next((row for row in result.compared if names.is_bare(row)), None)
    if bare is not None and result.verdict(best.arm, bare.arm) == "better":
        return "so it is the tokens and not the explanation that help"
    return "so nothing here shows that explaining helps"


def _open(result: StudyResult, names: Naming, pivot: ArmRow) -> list[str]:
    """Return one sentence on what these seeds cannot tell about `pivot`: in accuracy, and in speed."""
    if len(result.comparisons) > 1 and all(found.verdict == "unclear" for found in result.comparisons):
        seeds = max(found.seeds for found in result.comparisons)
        nearest = _nearest_to_clear(result, names)
        return [f"{capital(number_word(seeds))} seeds cannot tell the {names.several} apart{nearest}."]
    parts, seeds_each = [], [len(pivot.seeds)]
    for found_pairs, what in ((result.comparisons, "accuracy"), (result.speed, "speed")):
        others = []
        for found in found_pairs:
            if found.verdict == "unclear" and pivot.arm in (found.first, found.second):
                other = result.row(found.second if found.first == pivot.arm else found.first)
                others.append(names.of(other) + _would(found.seeds_needed))
                seeds_each.append(found.seeds)
        if others:
            parts.append(f"from {listed(others, 'or')} in {what}")
    if not parts:
        return []
    subject = "These seeds"
    if len(set(seeds_each)) == 1:
        subject = f"{capital(number_word(seeds_each[0]))} seeds"
    return [f"{subject} cannot tell {names.of(pivot)} {', nor '.join(parts)}."]


def _nearest_to_clear(result: StudyResult, names: Naming) -> str:
    """Return which pair of arms the fewest seeds would tell apart."""
    open_pairs = [found for found in result.comparisons if found.seeds_needed is not None]
    if not open_pairs:
        return ""
    found = min(open_pairs, key=lambda found: found.seeds_needed or 0)
    first, second = (names.bare(result.row(arm)) for arm in (found.first, found.second))
    return f"; {number_word(found.seeds_needed or 0)} would tell {first} from {second}"


def _would(needed: int | None) -> str:
    return f" ({number_word(needed)} would)" if needed else ""


def _left_out(result: StudyResult, names: Naming) -> list[str]:
    """Return a sentence on arms without a trial to compare and on failed seeds, where there are any."""
    parts = [f"{names.of(row)} ({_why_missing(row)})" for row in result.rows if row.accuracy is None]
    sentences = [f"Left out for want of a complete trial: {listed(parts, 'and')}."] if parts else []
    for row in result.rows:
        if row.failed_seeds:
            noun = "seeds" if len(row.failed_seeds) > 1 else "seed"
            failed = listed([str(seed) for seed in row.failed_seeds], "and")
            sentences.append(f"{capital(names.of(row))} is shown without {noun} {failed}, which failed.")
    return sentences


def _why_missing(row: ArmRow) -> str:
    if row.failed == row.runs:
        return "every run failed"
    if row.interrupted == row.runs:
        return "every run was interrupted"
    counts = ((row.interrupted, "interrupted"), (row.failed, "failed"), (row.stopped, "stopped early"))
    text = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"of {row.runs} runs {text}" if text else f"{row.runs} runs without grades"
