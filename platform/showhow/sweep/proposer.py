"""Hands Ray Tune one run after another: which trial, with which seed, in which order. Points come from the study (grid
and random search) or from Optuna's TPE, one Optuna study per explanation level.

For grid and random search seeds are outermost: every trial gets its first seed early, and trials stopped by then never
spend the others. In the last seed the trials that took longest go first (Graham, SIAM J. Appl. Math. 17, 1969), so that
no processor waits long for the last run. TPE learns from finished trials, so there a trial's seeds follow one another.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import optuna
from ray.tune.search import Searcher

from showhow.evidence.outcome import RunOutcome
from showhow.sections.scalars import Scalar
from showhow.sections.trial import Trial
from showhow.seeds import seed_for
from showhow.study.search_space import Axis, Grid, Integers, LogUniform, Uniform
from showhow.study.study import Study
from showhow.study.variants import EXPLANATION
from showhow.sweep.arbiter import Arbiter
from showhow.tasks.explain import Level

# Ray Tune pickles what it is given, so that it could restore an experiment. A study goes on from its journal instead,
# and what holds files and threads open cannot be pickled: this stands in its place.
NOT_SAVED = "kept in the driver only"


@dataclass(frozen=True)
class Run:
    """One trial with one seed."""

    trial: Trial
    seed: int

    @property
    def key(self) -> str:
        """Its name within the study."""
        return run_key(self.trial.name, self.seed)


def run_key(trial: str, seed: int) -> str:
    """Return the name of a run within its study, such as `trial-003/seed-1`."""
    return f"{trial}/seed-{seed}"


class Proposer:
    """Yields the runs of a study in order, leaving out those done already and those of trials that were stopped."""

    def __init__(self, study: Study, arbiter: Arbiter, past: Sequence[RunOutcome] = ()) -> None:
        """`past`: what earlier sittings of the study left."""
        self._study, self._arbiter = study, arbiter
        self._done = {run_key(run.trial, run.seed): run for run in past if run.status in ("finished", "stopped")}
        self._seconds = {run.trial: run.seconds for run in past}
        self._tpe = TreeParzen(study, past) if study.search.algorithm == "optuna" else None

    def __iter__(self) -> Iterator[Run]:
        for run in self._in_order():
            before = self._done.get(run.key)
            if before is not None:
                self.tell(run.trial, before.selection, before.seconds)
            elif run.trial.name not in self._arbiter.stopped:
                yield run

    def tell(self, trial: Trial, accuracy: float | None, seconds: float = 0.0) -> None:
        """Say how a run ended (its last validation accuracy; None when it failed), for searches that learn from it, and
        how long it took."""
        self._seconds[trial.name] = seconds
        if self._tpe is not None:
            self._tpe.tell(trial, accuracy, is_last=trial.name in self._arbiter.stopped)

    def _in_order(self) -> Iterator[Run]:
        if self._tpe is None:
            *seeds, last = self._study.seeds
            yield from (Run(trial, seed) for seed in seeds for trial in self._study.trials)
            longest_first = sorted(self._study.trials, key=lambda trial: -self._seconds.get(trial.name, 0.0))
            yield from (Run(trial, last) for trial in longest_first)
            return
        index = 0
        for _ in range(self._study.search.samples):
            for level in self._study.levels:
                trial = self._tpe.ask(level, self._study.trial_name(index))
                yield from (Run(trial, seed) for seed in self._study.seeds)
                index += 1


class TreeParzen:
    """Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), one study a level. A point's value is
    the mean over its seeds; a failed run makes its point infeasible and not merely bad."""

    def __init__(self, study: Study, past: Sequence[RunOutcome] = ()) -> None:
        self._study = study
        self._past = {run.trial: run.params for run in past}
        axes = {name: axis for name, axis in study.search.axes.items() if name != EXPLANATION}
        self._distributions = {name: _distribution(axis) for name, axis in axes.items()}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._optuna = {
                level: optuna.create_study(
                    direction="maximize",
                    sampler=optuna.samplers.TPESampler(
                        seed=seed_for("tpe", study.search.seed, level) % 2**32, constant_liar=True, n_startup_trials=4
                    ),
                )
                for level in study.levels
            }
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._heard: dict[str, list[float | None]] = {}

    def ask(self, level: Level, name: str) -> Trial:
        """Choose the next point of a level, or the one that a trial of this name had in an earlier sitting."""
        if name in self._past:
            before = self._past[name]
            self._optuna[level].enqueue_trial(
                {axis: before[axis.removeprefix("recipe.")] for axis in self._distributions}
            )
        asked = self._optuna[level].ask(self._distributions)
        self._asked[name] = asked
        point: dict[str, Scalar] = {EXPLANATION: level.value}
        for axis, value in asked.params.items():
            point[axis] = float(f"{value:.4g}") if isinstance(value, float) else value
        return self._study.trial(name, point)

    def tell(self, trial: Trial, accuracy: float | None, is_last: bool) -> None:
        """Note one run; with the last seed, or when no more will follow, the point's value is told."""
        heard = self._heard.setdefault(trial.name, [])
        heard.append(accuracy)
        if not (is_last or len(heard) == len(self._study.seeds)) or trial.name not in self._asked:
            return
        values = [value for value in heard if value is not None]
        state = optuna.trial.TrialState.COMPLETE if len(values) == len(heard) else optuna.trial.TrialState.FAIL
        study = self._optuna[trial.level]
        study.tell(self._asked.pop(trial.name), fmean(values) if len(values) == len(heard) else None, state=state)


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    match axis:
        case Grid():
            return optuna.distributions.CategoricalDistribution(axis.grid)
        case Uniform():
            return optuna.distributions.FloatDistribution(*axis.uniform)
        case LogUniform():
            return optuna.distributions.FloatDistribution(*axis.log_uniform, log=True)
        case Integers():
            return optuna.distributions.IntDistribution(*axis.integers)


class TuneSearch(Searcher):  # type: ignore[misc]
    """What Ray Tune asks for the next run. A run's configuration is made by `configure`."""

    def __init__(self, runs: Iterator[Run], configure: Any) -> None:
        super().__init__()
        self._runs, self._configure = runs, configure
        self.by_trial_id: dict[str, Run] = {}
        self.is_exhausted = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the configuration of the next run, or say that there is none."""
        run = next(self._runs, None)
        if run is None:
            self.is_exhausted = True
            finished: str = Searcher.FINISHED
            return finished
        self.by_trial_id[trial_id] = run
        configuration: dict[str, Any] = self._configure(run)
        return configuration

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the recorder hears of every end."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a study goes on from its journal, not from Ray Tune's files."""

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (NOT_SAVED,)
