"""The answer in plain sentences, and the level to recommend. Pure.

Three kinds of sentence: what happened at each level (counts of seeds, no inference), what that supports (only
verdicts of the comparisons), and what these seeds cannot tell. A level is recommended where it is the cheapest of
several that are the same as the best, or better than every other level. A control is never recommended.
"""

from collections.abc import Callable, Sequence

from showhow.evidence.claims import FEWEST_SEEDS
from showhow.evidence.result import LevelRow, Recommendation, StudyResult
from showhow.evidence.wording import listed, number_word, share

Clause = tuple[str, list[LevelRow]]


def conclude(result: StudyResult) -> StudyResult:
    """Return the result with its conclusion and its recommendation."""
    compared = result.compared
    if not compared:
        return result.model_copy(update={"conclusion": (_nothing_compared(result),), "recommend": None})
    found: list[str] = [_what_happened(result)]
    best = _best(result)
    pick = None
    if len(compared) == 1:
        found.append(_alone(result, compared[0]))
    elif not all(row.at_chance for row in compared):
        supported, pick = _what_follows(result, best)
        found += supported
    found += _left_out(result)
    chosen = None
    if pick is not None and pick.trial is not None:
        chosen = Recommendation(level=pick.level, trial=pick.trial, params=pick.params)
    return result.model_copy(update={"conclusion": tuple(found), "recommend": chosen})


def _name(row: LevelRow) -> str:
    return f"the {row.level} control" if row.is_control else row.level


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _list(rows: Sequence[LevelRow], last: str) -> str:
    return listed([_name(row) for row in rows], last)


def _names(rows: Sequence[LevelRow], last: str) -> str:
    """Return `medium or long explanations`, or the bare names where one of them is no explanation."""
    names = _list(rows, last)
    explained = not any(row.is_control or row.level == "none" for row in rows)
    return f"{names} explanations" if explained else names


def _cost(row: LevelRow) -> float:
    return float("inf") if row.tokens_per_reply is None else row.tokens_per_reply


def _explanations(result: StudyResult) -> list[LevelRow]:
    return [row for row in result.compared if not row.is_control]


def _best(result: StudyResult) -> LevelRow | None:
    """Return the level of highest accuracy that is not a control; of equal ones the cheapest.

    Levels with failed or too few seeds are looked at only where there are no others: survivors and lucky runs lead.
    """
    rows = _explanations(result)
    sound = [row for row in rows if not row.failed_seeds and len(row.seeds) >= FEWEST_SEEDS]
    return min(sound or rows, key=lambda row: (-round(_mean(row), 9), _cost(row)), default=None)


def _mean(row: LevelRow) -> float:
    return row.accuracy.mean if row.accuracy else 0.0


def _seeds(row: LevelRow) -> int:
    """Return how many seeds the trial was run with; one that failed did not solve the task."""
    return len(row.seeds) + len(row.failed_seeds)


def _nothing_compared(result: StudyResult) -> str:
    runs = sum(row.runs for row in result.rows)
    if runs == 0:
        return "No run has ended yet: there is nothing to compare."
    if runs == sum(row.failed for row in result.rows):
        reason = next((row.failure for row in result.rows if row.failure), None)
        return f"Every run failed{f' ({reason})' if reason else ''}: there is nothing to compare."
    return (
        "No level has a trial whose runs all used up their budget or solved the task: there is nothing to compare yet."
    )


def _what_happened(result: StudyResult) -> str:
    """Return one sentence that puts every level under what its seeds did."""
    rows = result.compared
    if all(row.at_chance for row in rows):
        with_what = _list(rows, "or")
        return f"Nothing learned the task: with {with_what} the model does no better than guessing."
    alone = max(len(row.seeds) for row in rows) == 1
    learns = "learned the task in its only run" if alone else "learns the task with every seed"
    groups: tuple[tuple[Callable[[LevelRow], bool], str], ...] = (
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
            who = f"{_list(members, 'or')} it" if clauses else f"{_names(members, 'or')} {subject}"
            clauses.append(f"with {who} {happened or _by_level(members)}")
    return _capital("; ".join(clauses)) + "."


def _alone(result: StudyResult, row: LevelRow) -> str:
    if len(result.rows) == 1:
        return "There is only one level, so nothing can be said about others."
    return f"Only {_name(row)} has a trial to compare, so nothing can be said about the other levels."


def _by_level(rows: list[LevelRow]) -> str:
    """Return what levels between chance and solved reached: how many seeds solved it, or the mean accuracy."""
    if rows[0].solved:
        counts = [f"{row.solved} of {_seeds(row)}" for row in rows]
        same = len(rows) > 1 and len(set(counts)) == 1
        return f"depends on the seed ({f'{counts[0]} each' if same else listed(counts, 'and')} solve the task)"
    means = [share(_mean(row)) for row in sorted(rows, key=_mean)]
    return f"reaches {means[0]}" + (f" to {means[-1]}" if means[0] != means[-1] else "")


def _what_follows(result: StudyResult, best: LevelRow | None) -> tuple[list[str], LevelRow | None]:
    """Return what the verdicts support, what they leave open, and the level to recommend."""
    seeds = max(comparison.seeds for comparison in result.comparisons)
    if seeds < FEWEST_SEEDS:
        subject = f"{number_word(seeds)} seed{'s' if seeds > 1 else ''}"
        return [f"{_capital(subject)} cannot tell levels apart: at least {number_word(FEWEST_SEEDS)} can."], None
    if best is None:
        return ["Only controls have a trial to compare, so nothing can be said about explanations."], None
    sentences = _controls(result, best)
    verdict, pick = _verdict(result, best)
    sentences += verdict
    sentences += _open(result, pick or best)
    return sentences, pick


def _verdict(result: StudyResult, best: LevelRow) -> tuple[list[str], LevelRow | None]:
    """Return the sentence on explanations, and the level it recommends."""
    rivals = [row for row in _explanations(result) if row.level != best.level]
    equals = [best, *(row for row in rivals if result.verdict(best.level, row.level) == "same")]
    beaten = [row for row in rivals if result.verdict(best.level, row.level) == "better"]
    pick = min(equals, key=_cost)
    if rivals and len(equals) == len(rivals) + 1:
        in_order = [row.level for row in _explanations(result)]
        same = f"No difference: {listed(in_order, 'and')} do equally well, within {result.margin:g}"
        return [f"{same}; {pick.level} is the cheapest."], pick
    if len(equals) > 1 and pick.level == "none":
        return ["No explanation is needed: none does as well as the best."], pick
    if len(equals) > 1:
        return [f"{_capital(pick.level)} is the cheapest explanation that is as good as the best."], pick
    if not beaten:
        return [], None
    subject = "no explanation at all" if best.level == "none" else best.level
    over = listed([row.level for row in beaten], "and")
    return [f"{_capital(subject)} does better than {over}."], best if len(beaten) == len(rivals) else None


def _controls(result: StudyResult, best: LevelRow) -> list[str]:
    """Return a sentence where the best explanation beats every control, or a control does as well or better."""
    rows = [row for row in result.compared if row.is_control]
    if rows and all(result.verdict(best.level, row.level) == "better" for row in rows):
        so = "so it is the explanation that helps, and not merely its tokens"
        return [f"{_capital(best.level)} does better than {_list(rows, 'and')}, {so}."]
    as_good = [row for row in rows if result.verdict(row.level, best.level) in ("same", "better")]
    if not as_good or best.level == "none":
        return []
    subject = f"{_list(as_good, 'and')} {'do' if len(as_good) > 1 else 'does'}"
    bare = next((row for row in result.compared if row.level == "none"), None)
    if bare is not None and result.verdict(best.level, bare.level) == "better":
        so = "so it is the tokens and not the explanation that help"
    else:
        so = "so nothing here shows that explaining helps"
    return [f"{_capital(subject)} as well as {best.level}, {so}."]


def _open(result: StudyResult, pivot: LevelRow) -> list[str]:
    """Return one sentence on what these seeds cannot tell about `pivot`: in accuracy, and in speed."""
    if len(result.comparisons) > 1 and all(found.verdict == "unclear" for found in result.comparisons):
        seeds = max(found.seeds for found in result.comparisons)
        return [f"{_capital(number_word(seeds))} seeds cannot tell the levels apart{_nearest_to_clear(result)}."]
    parts, seeds_each = [], [len(pivot.seeds)]
    for found_pairs, what in ((result.comparisons, "accuracy"), (result.speed, "speed")):
        names = []
        for found in found_pairs:
            if found.verdict == "unclear" and pivot.level in (found.first, found.second):
                other = result.row(found.second if found.first == pivot.level else found.first)
                names.append(_name(other) + _would(found.seeds_needed))
                seeds_each.append(found.seeds)
        if names:
            parts.append(f"from {listed(names, 'or')} in {what}")
    if not parts:
        return []
    subject = "These seeds"
    if len(set(seeds_each)) == 1:
        subject = f"{_capital(number_word(seeds_each[0]))} seeds"
    return [f"{subject} cannot tell {_name(pivot)} {', nor '.join(parts)}."]


def _nearest_to_clear(result: StudyResult) -> str:
    """Return which pair of levels the fewest seeds would tell apart."""
    open_pairs = [found for found in result.comparisons if found.seeds_needed is not None]
    if not open_pairs:
        return ""
    found = min(open_pairs, key=lambda found: found.seeds_needed or 0)
    return f"; {number_word(found.seeds_needed or 0)} would tell {found.first} from {found.second}"


def _would(needed: int | None) -> str:
    return f" ({number_word(needed)} would)" if needed else ""


def _left_out(result: StudyResult) -> list[str]:
    """Return a sentence on levels without a trial to compare and on failed seeds, where there are any."""
    parts = [f"{_name(row)} ({_why_missing(row)})" for row in result.rows if row.accuracy is None]
    sentences = [f"Left out for want of a complete trial: {listed(parts, 'and')}."] if parts else []
    for row in result.rows:
        if row.failed_seeds:
            noun = "seeds" if len(row.failed_seeds) > 1 else "seed"
            failed = listed([str(seed) for seed in row.failed_seeds], "and")
            sentences.append(f"{_capital(_name(row))} is shown without {noun} {failed}, which failed.")
    return sentences


def _why_missing(row: LevelRow) -> str:
    if row.failed == row.runs:
        return "every run failed"
    if row.interrupted == row.runs:
        return "every run was interrupted"
    counts = ((row.interrupted, "interrupted"), (row.failed, "failed"), (row.stopped, "stopped early"))
    said = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"of {row.runs} runs {said}" if said else f"{row.runs} runs without grades"
