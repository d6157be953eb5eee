"""Gives Ray Tune the runs of a study in order: a trial and a seed each. Points come from the study (grid and random
search) or from Optuna's TPE, one Optuna study for each arm in each setting.

For grid and random search seeds are outermost: every trial gets its first seed early, and trials stopped by then never
use the others. In the last seed the longest trials run first (Graham, SIAM J. Appl. Math. 17, 1969), so that no
processor waits long for the last run. TPE learns from finished trials, so there a trial's seeds run consecutively.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

import optuna
from ray.tune.search import Searcher

from showhow.sections.arm import Arm
from showhow.sections.scalars import Scalar
from showhow.sections.trial import Trial
from showhow.seeds import seed_for
from showhow.study.search_space import Axis, Grid, Integers, LogUniform, Uniform, applies
from showhow.study.study import Study
from showhow.sweep.arbiter import Arbiter
from showhow.tasks.explain import Level
from showhow.tracking.runs import RunRecord, StudyRecord, group_of

# Ray Tune pickles its search and callbacks in order to restore an experiment. A study resumes from its journal instead,
# and objects with open files and threads cannot be pickled, so this text replaces them.
NOT_SAVED = "exists in the driver only"


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
    """Yields the runs of a study in order, without finished runs and runs of stopped trials."""

    def __init__(self, study: Study, arbiter: Arbiter, record: StudyRecord) -> None:
        """`record`: the runs of earlier sessions; `learn` adds those of this session."""
        self._study, self._arbiter = study, arbiter
        before = dict(record.runs)
        self._done = {key: run for key, run in before.items() if run.status in ("finished", "stopped")}
        self._seconds = {run.start.trial: run.seconds for run in before.values()}
        self._tpe = TreeParzen(study, before.values()) if study.search.algorithm == "optuna" else None

    def __iter__(self) -> Iterator[Run]:
        for run in self._in_order():
            done = self._done.get(run.key)
            if done is not None:
                self.learn(run.trial, done.accuracy, done.seconds)
            elif run.trial.name not in self._arbiter.stopped:
                yield run

    def learn(self, trial: Trial, accuracy: float | None, seconds: float = 0.0) -> None:
        """Add the last validation accuracy of a run (None when it failed), for searches that learn from it, and its
        duration."""
        self._seconds[trial.name] = seconds
        if self._tpe is not None:
            self._tpe.learn(trial, accuracy, is_last=trial.name in self._arbiter.stopped)

    def _in_order(self) -> Iterator[Run]:
        if self._tpe is None:
            *seeds, last = self._study.seeds
            yield from (Run(trial, seed) for seed in seeds for trial in self._study.trials)
            longest_first = sorted(self._study.trials, key=lambda trial: -self._seconds.get(trial.name, 0.0))
            yield from (Run(trial, last) for trial in longest_first)
            return
        groups = product(range(self._study.search.samples), self._study.settings, self._study.arms)
        for index, (_, setting, arm) in enumerate(groups):
            trial = self._tpe.propose(arm, setting, self._study.trial_name(index))
            yield from (Run(trial, seed) for seed in self._study.seeds)


class TreeParzen:
    """Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), one Optuna study for each arm in each
    setting. A point's value is the mean over its seeds; a failed run makes its point infeasible, not just bad."""

    def __init__(self, study: Study, before: Iterable[RunRecord] = ()) -> None:
        """`before`: the runs of earlier sessions, whose trials keep their points."""
        self._study = study
        self._params = {run.start.trial: run.start.params for run in before}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._optuna = {
                group_of(arm.name, setting): _optuna_study(study.search.seed, arm, setting)
                for setting in study.settings
                for arm in study.arms
            }
        self._open: dict[str, optuna.trial.Trial] = {}  # proposed, without a value yet
        self._accuracies: dict[str, list[float | None]] = {}

    def propose(self, arm: Arm, setting: dict[str, Scalar], name: str) -> Trial:
        """Choose the next point of an arm in a setting, or the one that a trial of this name had in an earlier
        session."""
        fixed: dict[str, Scalar] = {**arm.values, **setting}
        axes = {axis: values for axis, values in self._study.search.axes.items() if applies(axis, fixed)}
        free = {axis: _distribution(values) for axis, values in axes.items() if axis not in fixed}
        tpe = self._optuna[group_of(arm.name, setting)]
        if name in self._params:
            tpe.enqueue_trial({axis: self._params[name][axis] for axis in free})
        self._open[name] = tpe.ask(free)
        point = dict(fixed)
        for axis, value in self._open[name].params.items():
            point[axis] = float(f"{value:.4g}") if isinstance(value, float) else value
        return self._study.trial(name, point)

    def learn(self, trial: Trial, accuracy: float | None, is_last: bool) -> None:
        """Add one run; with the last seed, or when no more will follow, TPE learns the point's value."""
        accuracies = self._accuracies.setdefault(trial.name, [])
        accuracies.append(accuracy)
        if not (is_last or len(accuracies) == len(self._study.seeds)) or trial.name not in self._open:
            return
        values = [value for value in accuracies if value is not None]
        succeeded = len(values) == len(accuracies)
        state = optuna.trial.TrialState.COMPLETE if succeeded else optuna.trial.TrialState.FAIL
        tpe = self._optuna[group_of(trial.arm, trial.setting)]
        tpe.tell(self._open.pop(trial.name), fmean(values) if succeeded else None, state=state)


def _optuna_study(seed: int, arm: Arm, setting: dict[str, Scalar]) -> optuna.Study:
    is_level = arm.name in Level.__members__.values()
    key = (Level(arm.name) if is_level else arm.name, *(group_of(arm.name, setting)[1:] if setting else ()))
    sampler = optuna.samplers.TPESampler(
        seed=seed_for("tpe", seed, *key) % 2**32, constant_liar=True, n_startup_trials=4
    )
    return optuna.create_study(direction="maximize", sampler=sampler)


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
    """Gives Ray Tune the next run. `configure` makes a run's configuration."""

    def __init__(self, runs: Iterator[Run], configure: Any) -> None:
        super().__init__()
        self._runs, self._configure = runs, configure
        self.by_trial_id: dict[str, Run] = {}
        self.is_exhausted = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the configuration of the next run, or Searcher.FINISHED."""
        run = next(self._runs, None)
        if run is None:
            self.is_exhausted = True
            finished: str = Searcher.FINISHED
            return finished
        self.by_trial_id[trial_id] = run
        configuration: dict[str, Any] = self._configure(run)
        return configuration

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the recorder handles the end of a run."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a study resumes from its journal, not from Ray Tune's files."""

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (NOT_SAVED,)
