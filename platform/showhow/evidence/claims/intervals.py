"""Bootstrap intervals over seeds and over questions. Pure.

The design is crossed: all runs of a study answer the same test questions. One replicate draws one set of questions,
with replacement, for all arms, and for each arm one set of its seeds, with replacement; an arm's accuracy is the
mean over both (the pigeonhole bootstrap: Owen, Annals of Applied Statistics 1 (2007) 386-411). Intervals are
percentiles (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

With few seeds they are too narrow: for runs that learn with probability 0.5 the 95% interval of three seeds contains
the truth in 75 of 100 studies and of five in 94; at probability 0.2 in 48 and 66, since seeds that all failed to learn
show no variance. So no claim rests on an interval alone (see accuracy.py), and each is shown with the number of runs
that solved the task.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from showhow.evidence.result import Estimate
from showhow.seeds import seed_for

REPLICATES = 2000
TAIL = 0.025  # on either side: 95% intervals
CELLS_AT_ONCE = 1 << 21  # question counts in memory: 16 MiB

Floats = NDArray[np.float64]


def bootstrap_accuracies(grades: Mapping[str, NDArray[np.bool_]]) -> dict[str, Floats]:
    """Return each arm's bootstrapped mean accuracies, shape (REPLICATES,); all arms share questions.

    grades: per arm, shape (seeds, questions), with the same questions for all. An arm's replicates depend on its
    own grades only, so adding an arm does not change them.
    """
    if not grades:
        return {}
    by_run = _replicate_runs(np.vstack(list(grades.values())))
    ends = np.cumsum([len(runs) for runs in grades.values()])[:-1]
    per_arm = np.split(by_run, ends, axis=1)
    return {arm: _resample_seeds(arm, runs) for arm, runs in zip(grades, per_arm, strict=True)}


def bootstrap_seeds(arm: str, values: Sequence[float]) -> Floats:
    """Return bootstrapped means of one value per seed, shape (REPLICATES,); seeds are drawn as for the accuracy."""
    return _resample_seeds(arm, np.broadcast_to(np.asarray(values, dtype=np.float64), (REPLICATES, len(values))))


def estimate(mean: float, replicates: Floats) -> Estimate:
    """Return `mean` with the percentiles of its replicates, widened where needed (by rounding only) to contain it."""
    low, high = np.quantile(replicates, [TAIL, 1 - TAIL])
    return Estimate(mean=mean, low=min(float(low), mean), high=max(float(high), mean))


def _replicate_runs(grades: NDArray[np.bool_]) -> Floats:
    """Return every run's accuracy on the drawn questions, shape (REPLICATES, runs)."""
    questions = grades.shape[1]
    rng = np.random.default_rng(seed_for("bootstrap", "questions", questions))
    right = grades.T.astype(np.float32)  # sums of counts stay exact below 2^24
    rows = max(1, CELLS_AT_ONCE // questions)
    parts = []
    for start in range(0, REPLICATES, rows):
        size = min(rows, REPLICATES - start)
        counts = rng.multinomial(questions, np.full(questions, 1 / questions), size=size)
        parts.append(counts.astype(np.float32) @ right)
    return np.divide(np.vstack(parts), questions, dtype=np.float64)


def _resample_seeds(arm: str, by_run: Floats) -> Floats:
    seeds = by_run.shape[1]
    rng = np.random.default_rng(seed_for("bootstrap", "seeds", arm))
    drawn = rng.integers(0, seeds, size=(REPLICATES, seeds))
    return np.asarray(np.take_along_axis(by_run, drawn, axis=1).mean(axis=1), dtype=np.float64)
