"""One session of a study: Ray Tune runs the remaining runs, and the recorder records them."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.air._internal import usage
from ray.tune.execution import class_cache

from ray import tune
from showhow.datasets.prepare import Preparation
from showhow.errors import UserError
from showhow.home.folder import StudyFolder
from showhow.machines.assignment import Assignment
from showhow.machines.layout import Layout
from showhow.processes.equipment import equipped
from showhow.processes.spread import places, run_as_laid_out
from showhow.processes.trial import assignment, configuration, resources
from showhow.sections.trial import Trial
from showhow.study.study import Study
from showhow.sweep.proposer import Proposer, Run, TuneSearch
from showhow.sweep.recorder import ArbiterScheduler, Recorder, TuneCallbacks
from showhow.sweep.replay import Replay
from showhow.tracking.mlflow.tracker import environment
from showhow.tracking.tracker import Tracker

Trainable = Callable[[dict[str, Any]], None]

_RETRIES_OF_A_DEAD_PROCESS = 2
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # events go to the journal and to MLflow
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # a study resumes from its journal
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class Session:
    """Runs the runs that remain after earlier sessions."""

    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        preparation: Preparation,
        tracker: Tracker,
        layout_of: Callable[[Trial], Layout],
        trainable: Trainable | None,
    ) -> None:
        """`layout_of`: the layout of a trial in this session (see layouts.py). `trainable`: what runs in a trial's
        process; None is `run_as_laid_out`."""
        self._study, self._folder, self._preparation, self._tracker = study, folder, preparation, tracker
        self._layout_of = layout_of
        self._trainable = equipped(trainable or run_as_laid_out)

    def run(self, replay: Replay, at_once: int, variables: dict[str, str]) -> bool:
        """Run the remaining runs, `at_once` in parallel; variables: for the environment of the trials' processes.

        Returns False when it was interrupted."""
        recorder = Recorder(self._tracker, replay, self._preparation, self._study.stop.kind)
        recorder.end_interrupted()
        proposer = Proposer(self._study, replay.arbiter, replay.record)
        try:
            # Runs wait in Tune's queue so that no processor idles; but TPE should choose late, when it knows more.
            waiting = 2 if self._study.search.algorithm == "optuna" else at_once + 1
            with _tune_as_needed(waiting, variables), _interrupts_restored():
                is_over = self._tune(proposer, recorder)
        except KeyboardInterrupt:
            is_over = False
        except tune.TuneError:
            if recorder.fault is None:
                raise
            raise UserError(
                f"{self._folder.path} cannot be written: {recorder.fault.strerror}. Earlier reports are saved; "
                "free space, or repair the folder, and run the study again"
            ) from None
        # Ray Tune handles a Ctrl-C itself and returns normally.
        return recorder.interrupt() == 0 and is_over

    def _tune(self, proposer: Proposer, recorder: Recorder) -> bool:
        """Run the remaining runs. Returns False when it was interrupted."""
        study = self._study

        def configure(run: Run) -> dict[str, Any]:
            ready = self._preparation.of(run.trial)
            return configuration(
                Assignment(
                    trial=run.trial,
                    seed=run.seed,
                    shards={split: Path(path) for split, path in ready.shards.items()},
                    tokenizer=Path(ready.tokenizer),
                    goal_accuracy=study.stop.goal_accuracy,
                    layout=self._layout_of(run.trial),
                    checkpoints=self._folder.checkpoints / run.key,
                    save_every_seconds=60 * study.checkpoints.every_minutes,
                    keep_weights=study.checkpoints.keep_best > 0,
                    home=self._folder.home,
                ),
                study.resources,
            )

        search = TuneSearch(iter(proposer), configure)
        trainable = tune.with_resources(
            self._trainable, lambda config: places(assignment(config).layout, resources(config))
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=ArbiterScheduler(search, recorder),
                num_samples=-1,  # as many as the search proposes
                max_concurrent_trials=study.resources.max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self._folder.path),
                callbacks=[TuneCallbacks(search, recorder, proposer)],
                failure_config=tune.FailureConfig(max_failures=_RETRIES_OF_A_DEAD_PROCESS),
                verbose=0,
            ),
        )
        tuner.fit()
        return search.is_exhausted and all(map(recorder.has_ended, search.by_trial_id.values()))


@contextmanager
def _tune_as_needed(waiting: int, variables: dict[str, str]) -> Iterator[None]:
    """Change Ray Tune's defaults, and restore them at the end: the caller may use Tune too.

    waiting: how many runs may wait in Tune's queue; variables: for the environment of the trials' processes."""
    log, defaults, tag_callbacks = (
        logging.getLogger("ray.tune"),
        dict(class_cache.DEFAULT_ENV_VARS),
        usage.tag_callbacks,
    )
    level = log.level
    # Tune also saves its own state, and warns where two saves overlap; our failures are raised.
    log.setLevel(logging.CRITICAL)
    # With any runtime environment, even Tune's own for PyTorch Lightning, prestarted processes could not be used.
    class_cache.DEFAULT_ENV_VARS.clear()
    class_cache.DEFAULT_ENV_VARS.update(variables)
    # To count callbacks, Tune imports mlflow: 1.2 s before the first run, and without the tracker's settings.
    usage.tag_callbacks = lambda _callbacks: False
    try:
        with environment(_TUNE_SETTINGS | {"TUNE_MAX_PENDING_TRIALS_PG": str(waiting)}):
            yield
    finally:
        log.setLevel(level)
        class_cache.DEFAULT_ENV_VARS.clear()
        class_cache.DEFAULT_ENV_VARS.update(defaults)
        usage.tag_callbacks = tag_callbacks


@contextmanager
def _interrupts_restored() -> Iterator[None]:
    """Restore the handler of Ctrl-C, which Ray Tune replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has handlers, and Ray changes none elsewhere
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
