"""Runs a study from its question to its answer: datasets, trials, comparison. Every step is recorded as an event.

The same call resumes an interrupted study: finished and stopped runs are not repeated; the others, including failed
ones, are run again under the same names.

Slow steps overlap: datasets are made while the cluster starts, Ray Tune is imported while the trials' processes import
torch, and the modules of the conclusion are imported while the first runs train.
"""

import importlib
import importlib.metadata
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showhow.datasets.prepare import Preparation
from showhow.evidence.result import StudyResult
from showhow.fingerprint import Json
from showhow.home.folder import StudyFolder, home_folder
from showhow.home.retention import Keeper
from showhow.machines.room import Cluster, Demand
from showhow.processes.cluster import connected
from showhow.study.plan import planned_trials
from showhow.study.study import Study
from showhow.sweep.layouts import Layouts
from showhow.sweep.replay import Replay, replay
from showhow.tracking.address import tracking_uri
from showhow.tracking.jsonl import JsonlTracker, read_events
from showhow.tracking.mlflow.tracker import MlflowTracker, check_reachable
from showhow.tracking.several import Trackers
from showhow.tracking.tracker import Event, Reported, RunNoted, RunStatus, StudyEnded, StudyStarted, Tracker

_FACTS_OF = ("showhow", "ray", "torch", "transformers", "deepspeed", "mlflow", "pyarrow", "numpy")


def run_study(
    study: Study,
    address: str | None = None,
    home: Path | None = None,
    watchers: Sequence[Tracker] = (),
    say: Callable[[str], None] = lambda _line: None,
    trainable: Callable[[dict[str, Any]], None] | None = None,
) -> StudyResult:
    """Run or resume a study and return its result, which `showhow results NAME` shows again.

    address: a Ray cluster's (`auto` for one running on this machine); None uses the Ray that this process is connected
    to (for example by `ray.init()` in a notebook) and leaves it running, or starts one here and stops it at the end.
    home: the folder of all studies (default: SHOWHOW_HOME or showhow-runs); on a cluster every node must reach it.
    watchers: get every event after the journal; say: prints progress before the first run. trainable: what runs in a
    trial's process (default: see trial.py); benchmarks use one that does nothing.
    Raises UserError when the study cannot run here, and KeyboardInterrupt after the runs were marked."""
    study.check()
    if study.sharding.deepspeed:
        from showhow.training.deepspeed_engine import check_settings  # loads torch and DeepSpeed: seconds

        check_settings(study.sharding.deepspeed)
    folder = StudyFolder(home or home_folder(), study.name)
    uri = tracking_uri(folder.home)
    check_reachable(uri)
    folder.make()
    journal = JsonlTracker(folder.journal)
    with ThreadPoolExecutor(max_workers=1) as background:
        try:
            folder.claim(study)
            events = read_events(folder.journal)
            mlflow = MlflowTracker(uri, folder.path)
            try:
                for event in events:  # MLflow ignores events that it has
                    mlflow.record(event)
                replayed = replay(study, events)
                if events and replayed.is_complete(study):
                    return _write_result(folder)
                keeper = Keeper(folder.checkpoints, study.checkpoints, events)
                lasting = _Lasting(Trackers([journal, mlflow, keeper]))
                resumed = _Resumed(study, folder, Trackers([lasting, *watchers]), replayed, background)
                return resumed.run(address, Preparation(folder.home, say), trainable)
            finally:
                mlflow.close()
        finally:
            journal.close()
            folder.release()


def _write_result(folder: StudyFolder) -> StudyResult:
    from showhow.home.results import write_result  # loads scipy and matplotlib

    return write_result(folder)


@dataclass(frozen=True)
class _Resumed:
    """A study in its folder, its state after earlier sessions, and a background thread."""

    study: Study
    folder: StudyFolder
    tracker: Tracker
    replayed: Replay
    background: Executor

    def run(
        self, address: str | None, preparation: Preparation, trainable: Callable[[dict[str, Any]], None] | None
    ) -> StudyResult:
        """Run the remaining runs, and compare."""
        study = self.study
        trials = planned_trials(study)
        layouts = Layouts(study)
        demand = Demand(len(trials) * len(study.seeds), layouts.planned, study.resources)
        preparing = self.background.submit(preparation.prepare_small, trials)
        with connected(address, demand) as connection:
            from showhow.sweep.session import Session  # loads Ray Tune

            preparing.result()
            preparation.prepare(trials)
            preparation.may_use_cluster = False
            cluster = connection.cluster
            self._begin(cluster)
            tracker = Trackers([self.tracker, _OnceTraining(self._import_early)])
            room = cluster.devices(study.resources)
            session = Session(
                study, self.folder, preparation, tracker, lambda trial: layouts.of(trial, room), trainable
            )
            is_over = session.run(self.replayed, cluster.runs_at_once(demand), connection.environment)
        result = _write_result(self.folder)
        self._end("finished" if is_over else "interrupted", result)
        if not is_over:
            raise KeyboardInterrupt
        return result

    def _begin(self, cluster: Cluster) -> None:
        study, facts = self.study, system_facts(cluster)
        self.tracker.record(StudyStarted(study.name, study.question, study.definition(), facts, time.time()))

    def _import_early(self) -> None:
        """Import the modules of the conclusion while runs train (scipy, matplotlib: a second)."""
        self.background.submit(importlib.import_module, "showhow.home.results")

    def _end(self, status: RunStatus, result: StudyResult) -> None:
        from showhow.home.results import final_metrics

        metrics = final_metrics(result)
        folder = self.folder
        files = [str(path) for path in (folder.picture, folder.results, folder.definition) if path.exists()]
        self.tracker.record(StudyEnded(status, " ".join(result.conclusion), files, metrics, time.time()))


class _Lasting:
    """Forwards the events that are recorded; notes on the start of processes are for watchers only."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def record(self, event: Event) -> None:
        """Forward an event, unless it is for watchers only."""
        if not (isinstance(event, RunNoted) and event.kind in ("starting", "started")):
            self._tracker.record(event)

    def close(self) -> None:
        """Close the tracker."""
        self._tracker.close()


class _OnceTraining:
    """Calls a function once the first run has reported, when starting no longer needs the processors."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def record(self, event: Event) -> None:
        """Call it at the first report of a run."""
        if self._act is not None and isinstance(event, Reported):
            self._act()
            self._act = None

    def close(self) -> None:
        """Do nothing."""


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
