"""Early stopping: examples spent until a study has its answer, beside the same study with every run to its end.

Studies are replayed against recorded learning curves (learning_curves.py), none of them stopped, through the arbiter
that real studies have: two runs at once, every trial's first seed first, three runs waiting in Ray Tune's queue, time
by examples. Repetitions differ in which points are drawn, in which order, and in which recorded runs are their seeds.
There are two pools, of two tasks. The defaults were chosen on the first, so only the second, held out, tells what they
do elsewhere. Within a pool the interval says what points, order and luck do, not what another task would.

The answer is that of `compare`: how many seeds of each level's best trial learned the task, and the verdict on each
pair of levels. Regret: accuracy of the trial that no stopping chooses less that of the trial chosen, each the mean over
all its recorded runs, not only those that the study saw. Limit: only the best trial of each level, to its goal.

`python -m benchmarks.stopping` prints all rules; with `--record SECONDS` it goes on recording.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median, stdev

from rich.console import Console
from rich.table import Table

from benchmarks.learning_curves import RECORDINGS, Recording, record
from benchmarks.measure import Figure, spread
from benchmarks.replays import (
    ACCURACY,
    SEEDS,
    Draw,
    Judge,
    PlainAsha,
    Pool,
    Replayed,
    Rule,
    draw,
    final_accuracy,
    name_of,
    read_pool,
    replay,
)
from showhow.evidence.result import ArmRow, StudyResult
from showhow.sections.stopping import Asha, Median, NoStopping
from showhow.sweep.arbiter import Arbiter

# Points of the search space and share of the budget. With two thirds of the budget the levels are learned by few of the
# points and late, some seeds by luck: what a rule must bear that promises not to kill runs about to click.
USUAL = (12, 1.0)
HARD = (12, 2 / 3)
SETTINGS = {
    "12 points": USUAL,
    "12 points, two thirds of the budget": HARD,
    "6 points": (6, 1.0),
    "3 points": (3, 1.0),
}
REPETITIONS = 40


def _ours(**changes: object) -> Callable[[int], Judge]:
    return lambda _budget: Arbiter(Asha.model_validate({"kind": "asha", **changes}), SEEDS)


LUCK = "no stopping, other seeds"
WITHOUT = Rule("none", lambda _budget: Arbiter(NoStopping(), SEEDS), has_goal=False)
ASHA = Rule("asha", _ours())
PEER = Rule("peer: Ray's ASHA a level, loss", lambda budget: PlainAsha("train_loss", budget, by_level=True))
GOAL_ALONE = Rule("goal alone", lambda _budget: Arbiter(NoStopping(), SEEDS))
RULES = (
    GOAL_ALONE,
    ASHA,
    Rule("asha, no goal", _ours(), has_goal=False),
    Rule("asha, grace 0.25", _ours(grace=0.25)),
    Rule("asha, grace 0.5", _ours(grace=0.5)),
    Rule("asha, factor 3", _ours(reduction_factor=3)),
    Rule("asha, factor 4", _ours(reduction_factor=4)),
    Rule("asha, min_trials 1", _ours(min_trials=1)),
    Rule("asha, min_seeds 2", _ours(min_seeds=2)),
    Rule("asha, accuracy", _ours(metric="accuracy")),
    Rule("median", lambda _budget: Arbiter(Median(kind="median"), SEEDS)),
    Rule("peer: Ray's ASHA, accuracy", lambda budget: PlainAsha(ACCURACY, budget)),
    Rule("peer: Ray's ASHA, loss", lambda budget: PlainAsha("train_loss", budget)),
    Rule("peer: Ray's ASHA a level, accuracy", lambda budget: PlainAsha(ACCURACY, budget, by_level=True)),
    PEER,
)


@dataclass(frozen=True)
class Measured:
    """One rule in one repetition, beside the same study without stopping. same_learned: share of the levels of which
    as many seeds learned; same_verdicts: share of the pairs of levels judged alike; slower: how many times the examples
    until solved of the trial chosen without stopping, a level's mean, where both solved it with every seed."""

    spent: float
    missed: float
    same_learned: float
    same_verdicts: float
    regret: float
    slower: float


def measure(
    pool: Pool, rules: Sequence[Rule], setting: tuple[int, float], repetitions: int
) -> dict[str, list[Measured]]:
    """Replay every repetition with every rule, and once more without one and with other seeds: what luck changes."""
    found: dict[str, list[Measured]] = {name: [] for name in (LUCK, *(rule.name for rule in rules))}
    for repetition in range(repetitions):
        study = draw(pool, *setting, repetition)
        whole = replay(study, WITHOUT).result
        again = replay(draw(pool, *setting, repetition, other_seeds=True), WITHOUT)
        found[LUCK].append(_measured(pool, study.budget, whole, again))
        for rule in rules:
            found[rule.name].append(_measured(pool, study.budget, whole, replay(study, rule)))
    return found


def _measured(pool: Pool, budget: int, whole: StudyResult, replayed: Replayed) -> Measured:
    accuracies = {
        name_of(*run): fmean(final_accuracy(curve, budget) for curve in curves) for run, curves in pool.runs.items()
    }
    result = replayed.result
    pairs = list(zip(whole.rows, result.rows, strict=True))
    verdicts = {(found.first, found.second): found.verdict for found in result.comparisons}
    alike = [verdicts.get((found.first, found.second)) == found.verdict for found in whole.comparisons]

    def quality(trial: str | None) -> float:
        return pool.guessing if trial is None else accuracies[trial]

    times = [(_until_solved(best), _until_solved(ours)) for best, ours in pairs]
    slower = [ours / best for best, ours in times if best and ours]
    return Measured(
        spent=replayed.spent,
        missed=replayed.missed,
        same_learned=fmean(best.learned == ours.learned for best, ours in pairs),
        same_verdicts=fmean(alike),
        regret=fmean(quality(best.trial) - quality(ours.trial) for best, ours in pairs),
        slower=fmean(slower) if slower else 1.0,
    )


def _until_solved(row: ArmRow) -> float | None:
    """Return the mean examples until a level's best trial solved the task; None unless every seed did."""
    until = [examples for examples in row.examples_until_solved if examples is not None]
    return fmean(until) if len(until) == SEEDS else None


def figures(full: bool = False) -> list[Figure]:
    """Replay studies of 12 points from each pool: with the stop rule's defaults, with the goal alone, and with Ray's
    ASHA by run, within levels and by loss."""
    repetitions = 4 * REPETITIONS if full else REPETITIONS
    return [figure for recording in RECORDINGS for figure in _of_pool(recording, repetitions)]


def _of_pool(recording: Recording, repetitions: int) -> list[Figure]:
    pool = read_pool(recording)
    found = measure(pool, (ASHA, GOAL_ALONE, PEER), USUAL, repetitions)
    hard = measure(pool, (ASHA, PEER), HARD, repetitions)
    limit = median(_least(pool, repetition) for repetition in range(repetitions))
    spent = {name: [one.spent for one in ones] for name, ones in found.items()}
    saved = [
        Figure(
            f"{recording.name}: spent, {what}",
            "of all",
            median(spent[name]),
            spread(spent[name]),
            1.0,
            limit,
            is_rate=False,
        )
        for what, name in (("stopping early", ASHA.name), ("goal alone", GOAL_ALONE.name))
    ]
    answers = []
    for what, ones in (("as without stopping", found), ("too little budget", hard)):
        ours, peer = ([one.same_learned for one in ones[rule.name]] for rule in (ASHA, PEER))
        regret, interval = _mean_and_interval([one.regret for one in ones[ASHA.name]])
        name = f"{recording.name}: answers, {what} (regret {regret:+.3f} ± {interval:.3f})"
        answers.append(Figure(name, "of all", fmean(ours), spread(ours), fmean(peer), 1.0))
    return saved + answers


def _least(pool: Pool, repetition: int) -> float:
    """Return the share of all examples that the best trials alone would have used, each run to its goal."""
    study = draw(pool, *USUAL, repetition)
    best = {row.trial for row in replay(study, WITHOUT).result.rows}
    runs = tuple(run for run in study.runs if run[1] in best)
    return replay(Draw(runs, study.budget, pool.guessing), GOAL_ALONE).spent * len(runs) / len(study.runs)


def _mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95% interval over repetitions."""
    return fmean(values), 1.96 * stdev(values) / sqrt(len(values))


def table(recording: Recording, setting: str, repetitions: int) -> Table:
    """Measure every rule in one setting."""
    title = f"{recording.name}: {setting}, {repetitions} repetitions"
    shown = Table(title=title, box=None, title_justify="left")
    shown.add_column("rule", no_wrap=True)
    for header in ("spent", "same learned", "same verdicts", "regret", "until solved", "missed"):
        shown.add_column(header, justify="right")
    for name, ones in measure(read_pool(recording), RULES, SETTINGS[setting], repetitions).items():
        regret, interval = _mean_and_interval([one.regret for one in ones])
        shown.add_row(
            name,
            f"{fmean(one.spent for one in ones):.3f}",
            f"{fmean(one.same_learned for one in ones):.3f}",
            f"{fmean(one.same_verdicts for one in ones):.3f}",
            f"{regret:+.3f} ± {interval:.3f}",
            f"x {fmean(one.slower for one in ones):.2f}",
            f"{fmean(one.missed for one in ones):.2f}",
        )
    return shown


def main() -> None:
    """Record, or print every rule in every setting."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stopping", description=__doc__)
    parser.add_argument("--record", type=float, metavar="SECONDS", help="train missing runs of each pool for so long")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    options = parser.parse_args()
    for recording in RECORDINGS:
        if options.record:
            print(f"{recording.name}: {record(recording, options.record)} runs are missing")
            continue
        for setting in SETTINGS:
            Console(width=120).print(table(recording, setting, options.repetitions))


if __name__ == "__main__":
    main()
