"""What a trial costs beside its training: trials that do nothing, in a study with its journal and MLflow (embedded
sqlite), beside bare Ray Tune with `reuse_actors=True` and otherwise its defaults, on the same cluster, in turns.

A trial of the study says its metrics and its outcome, all that a short run says; a bare trial reports one number.
Counted from the first report to the last end, when all processes are warm. Bare Tune makes all its trials before the
first starts, a study one after another, so the seconds in which they are made are added to bare Tune's. A second figure
ends when the study is concluded and everything it told is in MLflow, or when `fit` returns and Tune's loggers have
written their files. The limit is bare Ray Tune that writes nothing: no loggers, no state of its own. That every run
ended as finished is asserted.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ray.cluster_utils import Cluster
from ray.tune.schedulers import FIFOScheduler

import ray
from benchmarks.measure import REPEATS, Figure, spread
from ray import tune
from showhow.processes.trial import MESSAGE, METRICS, OUTCOME
from showhow.study.study import Study
from showhow.sweep.run_study import run_study
from showhow.tracking.tracker import Event, Reported, RunEnded

_LEAN = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "3600"}
_STUDY = """
name = "nothing"
question = "What does a trial cost that does nothing?"
seeds = [0]
task = { kind = "modular_sum", terms = 3, below = 5, modulus = 5 }
data = { train_examples = 80, eval_examples = 10 }
model = { kind = "scratch", architecture = "llama", hidden_size = 32, layers = 1 }
recipe = { batch_size = 8, max_examples = 800 }
evaluation = { every_examples = 80 }

[search]
explanation = { grid = ["none", "long"] }
learning_rate = { log_uniform = [1e-4, 1e-2] }
"""


@dataclass
class _Times:
    """When reports and ends were heard, and when all was over; the seconds in which trials were made before."""

    reports: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    over: float = 0.0
    making: float = 0.0

    def a_trial(self) -> float:
        """Milliseconds."""
        return 1000 * (self.making + self.ends[-1] - self.reports[0]) / len(self.ends)

    def a_trial_kept(self) -> float:
        """Milliseconds, until everything is written."""
        return 1000 * (self.making + self.over - self.reports[0]) / len(self.ends)


def figures(full: bool = False) -> list[Figure]:
    """Measure 80 trials a repetition, 200 in the long form."""
    trials = 200 if full else 80
    with tempfile.TemporaryDirectory() as folder, _environment({"RAY_AIR_NEW_OUTPUT": "0", "OMP_NUM_THREADS": "1"}):
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        file = Path(folder, "nothing.toml")
        file.write_text(_STUDY)
        study = Study.load(file, [f"search.samples={trials // 2}"])
        cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False})
        try:
            _bare(cluster.address, folder, trials)  # imports
            ours, bare, lean = [], [], []
            for repetition in range(REPEATS):
                ours.append(_ours(cluster.address, Path(folder, str(repetition)), study))
                bare.append(_bare(cluster.address, folder, trials))
                with _environment(_LEAN):
                    lean.append(_bare(cluster.address, folder, trials))
        finally:
            cluster.shutdown()

    def figure(name: str, of: Callable[[_Times], float]) -> Figure:
        mine, theirs, least = ([of(times) for times in way] for way in (ours, bare, lean))
        return Figure(name, "ms", median(mine), spread(mine), median(theirs), median(least), is_rate=False)

    return [
        figure("a trial that does nothing", _Times.a_trial),
        figure("the same, until all is kept", _Times.a_trial_kept),
    ]


class _Watcher:
    """Hears the study's events."""

    def __init__(self, times: _Times) -> None:
        self._times = times

    def record(self, event: Event) -> None:
        if isinstance(event, Reported):
            self._times.reports.append(time.perf_counter())
        elif isinstance(event, RunEnded):
            if event.status != "finished":
                raise AssertionError(f"{event.run}: {event.status}, {event.reason}")
            self._times.ends.append(time.perf_counter())

    def close(self) -> None:
        """Nothing is held."""


class _Ears(tune.Callback):  # type: ignore[misc]
    """Hears bare Ray Tune's trials."""

    def __init__(self, times: _Times) -> None:
        self._times = times

    def on_step_begin(self, iteration: int, *_told: Any, **_more: Any) -> None:
        if iteration == 0:
            self._began = time.perf_counter()

    def on_trial_made(self) -> None:
        self._times.making = time.perf_counter() - self._began

    def on_trial_result(self, *_told: Any, **_more: Any) -> None:
        self._times.reports.append(time.perf_counter())

    def on_trial_complete(self, *_told: Any, **_more: Any) -> None:
        self._times.ends.append(time.perf_counter())


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Ray Tune's default, which hears when a trial is made."""

    def __init__(self, ears: _Ears) -> None:
        super().__init__()
        self._ears = ears

    def on_trial_add(self, *_told: Any) -> None:
        self._ears.on_trial_made()


def _ours(address: str, home: Path, study: Study) -> _Times:
    message, metrics, outcome, reported = MESSAGE, METRICS, OUTCOME, _REPORTED

    def do_nothing(_config: dict[str, Any]) -> None:
        """Sent by value, so that a trial's process imports nothing of this file."""
        tune.report({message: json.dumps({metrics: reported})})
        tune.report({message: json.dumps({outcome: {"reached_goal": False, "grades": "0" * 10, "samples": {}}})})

    times = _Times()
    with _environment({}):
        run_study(study, address, home, [_Watcher(times)], trainable=do_nothing)
    times.over = time.perf_counter()
    if len(times.ends) != len(study.trials):
        raise AssertionError(f"{len(times.ends)} of {len(study.trials)} runs ended")
    return times


def _bare(address: str, folder: str, trials: int) -> _Times:
    def do_nothing(_config: dict[str, Any]) -> None:
        tune.report({"loss": 1.0})

    times = _Times()
    ears = _Ears(times)
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(do_nothing, {"CPU": 1}),
        param_space={"learning_rate": tune.loguniform(1e-4, 1e-2)},
        tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True, scheduler=_Scheduler(ears)),
        run_config=tune.RunConfig(name="bare", storage_path=folder, callbacks=[ears], verbose=0),
    )
    tuner.fit()
    times.over = time.perf_counter()
    ray.shutdown()
    return times


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set variables, and put back whatever was changed: a study sets some of Ray Tune's."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


_REPORTED = {
    "examples": 800.0,
    "tokens": 8000.0,
    "flops": 1e9,
    "train_loss": 1.0,
    "gradient_norm": 1.0,
    "learning_rate": 1e-3,
    "train_seconds": 1.0,
    "eval_seconds": 0.1,
    "examples_per_second": 800.0,
    "validation/accuracy": 0.5,
    "test/accuracy": 0.5,
}
