"""Runs a study from its question to its answer: datasets, trials, comparison. Everything that happens is an event.

The same call continues a study that was interrupted: runs that finished or were stopped stay; the others, failed ones
too, are run again under the same names.
"""

import importlib.metadata
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from showhow.datasets.prepare import Preparation
from showhow.errors import UserError
from showhow.evidence.journal import read_outcomes
from showhow.evidence.result import StudyResult
from showhow.fingerprint import Json
from showhow.metrics import on_split
from showhow.study.plan import planned_trials
from showhow.study.study import Study
from showhow.tracking.address import tracking_uri
from showhow.tracking.jsonl import JsonlTracker, read_events
from showhow.tracking.mlflow import MlflowTracker, check_reachable
from showhow.tracking.several import Trackers
from showhow.tracking.tracker import Event, RunStatus, StudyEnded, StudyStarted, Tracker
from showhow.tuning.cluster import Cluster, connected
from showhow.tuning.folder import StudyFolder, home_folder
from showhow.tuning.past import Past, replay
from showhow.tuning.recorder import ArbiterScheduler, Recorder, TuneEars
from showhow.tuning.space import Proposer, Run, TuneSearch
from showhow.tuning.stored import write_result
from showhow.tuning.trial import configuration, run_trial

_FACTS_OF = ("showhow", "ray", "torch", "transformers", "deepspeed", "mlflow", "pyarrow", "numpy")
_RETRIES_OF_A_DEAD_PROCESS = 2


def run_study(
    study: Study,
    address: str | None = None,
    home: Path | None = None,
    watchers: Sequence[Tracker] = (),
    say: Callable[[str], None] = lambda _line: None,
) -> StudyResult:
    """Run or continue a study and return its result, which `showhow results NAME` shows again.

    address: a Ray cluster's (`auto` for one running on this machine); None starts one here. home: the folder of all
    studies (default: SHOWHOW_HOME or showhow-runs); on a cluster it must be reachable from every node. watchers hear
    every event after the journal has it; `say` takes lines about what goes on before the first run.
    Raises UserError when the study cannot run here. A KeyboardInterrupt is passed on, after the runs were marked."""
    folder = StudyFolder(home or home_folder(), study.name)
    uri = tracking_uri(folder.home)
    check_reachable(uri)
    folder.make()
    journal = JsonlTracker(folder.journal)
    try:
        folder.claim(study)
        events = read_events(folder.journal)
        mlflow = MlflowTracker(uri, folder.path)
        try:
            for event in events:  # what MLflow has already, it takes no second time
                mlflow.record(event)
            past = replay(study, events)
            if past.is_complete(study):
                return write_result(folder)
            with connected(address, study.resources) as cluster:
                tracker = Trackers([journal, mlflow, *watchers])
                return _Session(study, folder, tracker, say).run(events, past, cluster)
        finally:
            mlflow.close()
    finally:
        journal.close()
        folder.release()


class _Session:
    """One sitting of a study."""

    def __init__(self, study: Study, folder: StudyFolder, tracker: Tracker, say: Callable[[str], None]) -> None:
        self._study, self._folder, self._tracker, self._say = study, folder, tracker, say

    def run(self, events: list[Event], past: Past, cluster: Cluster) -> StudyResult:
        study = self._study
        preparation = Preparation(self._folder.home, self._say)
        preparation.prepare(planned_trials(study))
        preparation.may_use_cluster = False
        facts = system_facts(cluster)
        self._tracker.record(StudyStarted(study.name, study.question, study.definition(), facts, time.time()))
        for end in past.closing():
            self._tracker.record(end)
        recorder = Recorder(self._tracker, past.arbiter, preparation, study.stop.kind)
        recorder.attempts.update(past.attempts)
        proposer = Proposer(study, past.arbiter, read_outcomes(events))
        try:
            is_over = self._tune(proposer, recorder, preparation, cluster.runs_at_once(study.resources))
        except KeyboardInterrupt:
            is_over = False
        except tune.TuneError:
            if recorder.fault is None:
                raise
            raise UserError(
                f"{self._folder.path} cannot be written: {recorder.fault.strerror}. What was reported before is kept; "
                "make room, or mend the folder, and run the study again"
            ) from None
        # Ray Tune takes a Ctrl-C for itself and returns as if nothing had happened.
        was_interrupted = recorder.interrupt() > 0 or not is_over
        result = self._conclude("interrupted" if was_interrupted else "finished")
        if was_interrupted:
            raise KeyboardInterrupt
        return result

    def _tune(self, proposer: Proposer, recorder: Recorder, preparation: Preparation, at_once: int) -> bool:
        """Run what is left to run. Returns False when it was interrupted."""
        study = self._study

        def configure(run: Run) -> dict[str, Any]:
            ready = preparation.of(run.trial)
            return configuration(run.trial, run.seed, ready.shards, ready.tokenizer, study.stop.goal_accuracy)

        search = TuneSearch(iter(proposer), configure)
        resources = study.resources
        trainable = tune.with_resources(run_trial, {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial})
        # Tune saves its own state beside ours, and complains aloud where two savings meet; what fails for us is raised.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        # Runs wait in Tune's queue so that no processor idles; but TPE should choose late, when more has been told.
        waiting = 2 if study.search.method == "optuna" else at_once + 1
        os.environ.update(_TUNE_SETTINGS | {"TUNE_MAX_PENDING_TRIALS_PG": str(waiting)})
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=ArbiterScheduler(search, recorder),
                num_samples=-1,  # as many as the search proposes
                max_concurrent_trials=resources.max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self._folder.path),
                callbacks=[TuneEars(search, recorder, proposer)],
                failure_config=tune.FailureConfig(max_failures=_RETRIES_OF_A_DEAD_PROCESS),
                verbose=0,
            ),
        )
        with _interrupts_restored():
            tuner.fit()
        return search.is_exhausted and all(run.key in recorder.ended for run in search.by_trial_id.values())

    def _conclude(self, status: RunStatus) -> StudyResult:
        result = write_result(self._folder)
        metrics = {
            f"{row.level}/{on_split('test', 'accuracy')}": row.accuracy.mean
            for row in result.rows
            if row.accuracy is not None
        }
        files = [
            str(path) for path in (self._folder.picture, self._folder.results, self._folder.definition) if path.exists()
        ]
        self._tracker.record(StudyEnded(status, " ".join(result.conclusion), files, metrics, time.time()))
        return result


@contextmanager
def _interrupts_restored() -> Iterator[None]:
    """Give Ctrl-C its meaning back: Ray Tune takes the handler and keeps it when it is done."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has handlers, and Ray leaves them alone elsewhere
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # events go to the journal and to MLflow
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the journal is what a study is continued from
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def system_facts(cluster: Cluster) -> dict[str, Json]:
    """Return versions, host and processors, for the record."""
    versions: dict[str, Json] = {f"version.{name}": importlib.metadata.version(name) for name in _FACTS_OF}
    return versions | {
        "version.python": platform.python_version(),
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cluster.cpus": cluster.cpus,
        "cluster.gpus": cluster.gpus,
        "cluster.nodes": len(cluster.nodes),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
