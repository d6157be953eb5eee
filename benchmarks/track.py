"""Tracking: what it costs to keep a study's runs in the journal and in MLflow, behind a server on sqlite and in the
embedded sqlite file, beside the plain way: `mlflow.log_metrics` at each report, while the trial waits. (`log_metric`,
point after point, takes five times as long; docs/performance.md has its figures.)

A run has 20 reports of 10 metrics (200 points), params, four datasets, two tables of replies and its grades, like a run
of the quickstart. The plain way logs points only. The limit is MLflow's own:
the same 200 points in one `log_batch` and nothing else; for what holds up the driver it is the journal's bytes handed
to the operating system, line by line, and twice forced to the disk. That MLflow holds the points told is asserted.

Processor time is that of this process (all its threads) and of the server. In a burst all runs come at once. At a
trial's pace 8 runs report once a second for 20 s, so that as much gathers between two sendings as in a study; one pass,
therefore no spread.
"""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from mlflow import MlflowClient
from mlflow.entities import Metric

from benchmarks.measure import REPEATS, Figure, spread
from showhow.fingerprint import Json
from showhow.tracking.jsonl import JsonlTracker, encode
from showhow.tracking.mlflow.server import serve_ui
from showhow.tracking.mlflow.tracker import EXPERIMENT, MlflowTracker
from showhow.tracking.several import Trackers
from showhow.tracking.tracker import Event, RepliesSampled, Reported, RunEnded, RunStarted, StudyStarted

REPORTS, METRICS = 20, 10
POINTS = REPORTS * METRICS
PACED_RUNS, PACE_SECONDS = 8, 1.0


@dataclass(frozen=True)
class Cost:
    """Of one run, in seconds: until MLflow has it, of processor time, and what `record` took of the caller's."""

    wall: float
    processor: float
    blocked: float


def figures(full: bool = False) -> list[Figure]:
    """Measure 20 runs a repetition, 1,000 in the long form."""
    runs = 1000 if full else 20
    with tempfile.TemporaryDirectory() as folder:
        served, embedded = Path(folder, "served"), Path(folder, "embedded")
        for store in (served, embedded):
            _Ways(_sqlite(store), store).ours(1)  # MLflow makes its tables, which takes seconds
        with serve_ui(_sqlite(served)) as server:
            found = _Ways(server.address, served, psutil.Process(server.process.pid)).figures("server", runs)
        return found + _Ways(_sqlite(embedded), embedded).figures("embedded", runs)


class _Ways:
    """The ways of bringing runs to one store."""

    def __init__(self, uri: str, folder: Path, server: psutil.Process | None = None) -> None:
        self._uri, self._folder, self._server = uri, folder, server
        self._studies = 0

    def figures(self, where: str, runs: int) -> list[Figure]:
        self.ours(1)
        ours, plain, batch = [], [], []
        for _ in range(REPEATS):
            ours.append(self.ours(runs))
            plain.append(self._plain())
            batch.append(self._batch())
        self._check()
        paced = self.ours(PACED_RUNS, PACE_SECONDS)
        rates = [POINTS / cost.wall for cost in ours]
        blocked, processor = [1000 * cost.blocked for cost in ours], [1000 * cost.processor for cost in ours]
        plain_wall, plain_processor = _middle(plain, "wall"), 1000 * _middle(plain, "processor")
        batch_wall, batch_processor = _middle(batch, "wall"), 1000 * _middle(batch, "processor")
        journal = 1000 * median(self._journal_alone() for _ in range(REPEATS))
        held = Figure(
            f"{where}: driver held up, a run", "ms", median(blocked), spread(blocked), 1000 * plain_wall, journal, False
        )
        cost = f"{where}: processor time, a run"
        return [
            held,
            Figure(
                f"{where}: points delivered",
                "1/s",
                median(rates),
                spread(rates),
                POINTS / plain_wall,
                POINTS / batch_wall,
            ),
            Figure(
                f"{cost} in a burst",
                "ms",
                median(processor),
                spread(processor),
                plain_processor,
                batch_processor,
                False,
            ),
            Figure(f"{cost} at pace", "ms", 1000 * paced.processor, 0.0, plain_processor, batch_processor, False),
        ]

    def ours(self, runs: int, pause_seconds: float = 0.0) -> Cost:
        """Journal and MLflow. With a pause the runs go side by side, a report of each at a time."""
        self._studies += 1
        study = self._folder / f"study-{self._studies}"
        tracker = Trackers([JsonlTracker(study / "journal.jsonl"), MlflowTracker(self._uri, study)])
        told = [_run(number) for number in range(runs)]
        turns: Iterable[Iterable[Event]] = zip(*told, strict=True) if pause_seconds else told
        started, blocked = self._now(), 0.0
        tracker.record(_STUDY)
        for turn in turns:
            before = time.perf_counter()
            for event in turn:
                tracker.record(event)
            blocked += time.perf_counter() - before
            time.sleep(pause_seconds)
        tracker.close()
        return self._cost(started, runs, blocked)

    def _plain(self) -> Cost:
        client, run_id = self._fresh_run()
        reports = [[*_points(event)] for event in _run(0) if isinstance(event, Reported)]
        started = self._now()
        for points in reports:
            client.log_batch(run_id, metrics=points)  # which is what log_metrics does
        return self._cost(started, 1)

    def _batch(self, runs: int = 10) -> Cost:
        points = [point for event in _run(0) if isinstance(event, Reported) for point in _points(event)]
        fresh = [self._fresh_run() for _ in range(runs)]
        started = self._now()
        for client, run_id in fresh:
            client.log_batch(run_id, metrics=points)
        return self._cost(started, runs)

    def _fresh_run(self) -> tuple[MlflowClient, str]:
        client = MlflowClient(self._uri)
        return client, client.create_run("0").info.run_id

    def _check(self) -> None:
        """Raise AssertionError unless each of our runs has every point of a metric that was told."""
        client = MlflowClient(self._uri)
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        expected = [(event.examples, event.metrics["metric-3"]) for event in _run(0) if isinstance(event, Reported)]
        for run in client.search_runs([experiment], "tags.`showhow.kind` = 'run'", max_results=5):
            points = client.get_metric_history(run.info.run_id, "metric-3")
            if sorted((point.step, point.value) for point in points) != expected:
                raise AssertionError(f"{run.info.run_name} in MLflow is not what was told")

    def _journal_alone(self) -> float:
        lines = [encode(event).encode() + b"\n" for event in _run(0)]
        with (self._folder / "alone.jsonl").open("ab", buffering=0) as file:
            started = time.perf_counter()
            for number, line in enumerate(lines):
                file.write(line)
                if number in (0, len(lines) - 1):
                    os.fsync(file.fileno())
            return time.perf_counter() - started

    def _now(self) -> tuple[float, float]:
        """Return wall time and processor time, of this process and of the server."""
        processor = time.process_time()
        if self._server is not None:
            for process in (self._server, *self._server.children(recursive=True)):
                processor += sum(process.cpu_times()[:2])
        return time.perf_counter(), processor

    def _cost(self, started: tuple[float, float], runs: float, blocked: float = 0.0) -> Cost:
        wall, processor = (after - before for before, after in zip(started, self._now(), strict=True))
        return Cost(wall / runs, processor / runs, blocked / runs)


def _middle(costs: list[Cost], field: str) -> float:
    return median([float(getattr(cost, field)) for cost in costs])


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def _points(event: Reported) -> Iterator[Metric]:
    for name, value in event.metrics.items():
        yield Metric(name, value, int(event.seconds_since_epoch * 1000), event.examples)


_STUDY = StudyStarted("benchmark", "What does tracking cost?", {"levels": ["long"]}, {"cpus": 2}, 1.7e9)


def _run(number: int) -> list[Event]:
    """Return what happens in a run, as large as a run of the quickstart."""
    key = f"trial-{number:04d}/seed-0"
    params: dict[str, Json] = {f"recipe.setting_{index}": index / 7 for index in range(38)}
    manifest: dict[str, Json] = {
        "task": "modular_sum",
        "level": "long",
        "path": "/data/0123456789abcdef",
        "rows": 20_000,
    }
    datasets = {
        split: manifest | {"fingerprint": f"{split}-0123456789abcdef"}
        for split in ("train", "validation", "test", "longer")
    }
    question: dict[str, Json] = {
        "question": "1+2+3+4+5+6=",
        "target": "3 6 0 5 1",
        "reply": "3 6 0 5 1",
        "steps_right": 1.0,
    }
    reports = [
        Reported(key, 800 * report, {f"metric-{index}": report + index / 7 for index in range(METRICS)}, 1.7e9 + report)
        for report in range(1, REPORTS + 1)
    ]
    return [
        RunStarted(key, f"trial-{number:04d}", 0, "long", params, datasets, 1, 1.7e9),
        *reports,
        *(RepliesSampled(key, split, [question] * 20, 1.7e9 + REPORTS) for split in ("test", "longer")),
        RunEnded(key, "finished", None, None, {"reached_goal": True, "grades": "1" * 500}, 1.7e9 + REPORTS),
    ]
