"""Laws of the MLflow tracker against a real store and a real server: nothing twice, nothing lost, nothing secret."""

import http.server
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

from showhow.errors import UserError
from showhow.tracking.address import tracking_uri
from showhow.tracking.mlflow.server import UiServer, serve_ui
from showhow.tracking.mlflow.tracker import MlflowTracker, check_reachable, publish_views, study_identity
from showhow.tracking.tracker import (
    Event,
    RepliesSampled,
    Reported,
    RunEnded,
    RunNoted,
    RunStarted,
    StageEnded,
    StudyEnded,
    StudyStarted,
)

SECRET = "hunter2"  # noqa: S105 - what must not be found again
STATUSES = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED", "failed": "FAILED"}
ROWS: list[Any] = [
    {"question": "1+2", "reply": "3", "steps_right": 1.0},
    {"question": "2+2", "reply": "5", "steps_right": None},
]


def run_key(number: int) -> str:
    return f"trial-{number:03d}/seed-1"


def run_started(number: int, attempt: int = 1, start: float = 1000.0) -> RunStarted:
    manifest: dict[str, Any] = {"task": "modular_sum", "level": "long", "path": "/data/long", "rows": 30, "tokens": 900}
    datasets = {role: {**manifest, "fingerprint": f"0123456789abcde{role[0]}"} for role in ("train", "validation")}
    params: dict[str, Any] = {"learning_rate": 1e-3, "prompt": "x" * 9000, "batch_size": 32}
    return RunStarted(run_key(number), f"trial-{number:03d}", 1, "long", params, datasets, attempt, start, level="long")


def reports(number: int, points: int, start: float = 1001.0) -> list[Event]:
    return [
        Reported(
            run_key(number), 64 * point, {"train_loss": 1 / point, "validation/accuracy": point / 100}, start + point
        )
        for point in range(1, points + 1)
    ]


def run_events(number: int, status: Any = "finished", points: int = 5) -> list[Event]:
    end = RunEnded(
        run_key(number),
        status,
        "median" if status == "stopped" else None,
        "loss is not a number" if status == "failed" else None,
        {"grades": [True, False]},
        1200.0,
    )
    return [
        run_started(number),
        *reports(number, points),
        RepliesSampled(run_key(number), "validation", ROWS, 1100.0),
        end,
    ]


def study_started() -> StudyStarted:
    facts: dict[str, Any] = {"torch": "2.13.0", "store": f"postgresql://me:{SECRET}@db/x"}
    return StudyStarted(
        "quickstart", "How much explanation?", {"levels": ["long"], "stop": {"rule": "median"}}, facts, 999.0
    )


def study_ended(files: list[str] | None = None) -> StudyEnded:
    return StudyEnded("finished", "Long is best.", files or [], {"examples": 640.0}, 1300.0)


def record(uri: str, folder: Path, events: list[Event], timeout_seconds: float = 60.0) -> None:
    tracker = MlflowTracker(uri, folder)
    for event in events:
        tracker.record(event)
    tracker.close(timeout_seconds)


def runs_of(uri: str) -> dict[str, Any]:
    """The experiment's runs by run key; the parent's is its study's name. Fails where a key stands twice."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("showhow")
    found = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    runs = {run.data.tags.get("showhow.run", run.info.run_name): run for run in found}
    assert len(runs) == len(found)
    return runs


def history(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    points = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose tables exist, to be copied: creating them takes seconds."""
    folder = tmp_path_factory.mktemp("empty")
    record(f"sqlite:///{folder}/mlflow.db", folder / "study", [study_started()])
    shutil.rmtree(folder / "artifacts")
    with sqlite3.connect(folder / "mlflow.db") as connection:
        for table in ("latest_metrics", "metrics", "params", "tags", "runs", "experiment_tags"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names from this file
        connection.execute("DELETE FROM experiments WHERE experiment_id != 0")
    return folder / "mlflow.db"


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    """A store of the test's own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def load_replies(uri: str, run: Any) -> Any:
    """Read the table as a user would. MLflow's `load_table` looks at the global address, whatever its client says."""
    with _use_tracking_uri(uri):
        return MlflowClient().load_table(run.info.experiment_id, "replies/validation.json", [run.info.run_id])


@pytest.fixture(scope="module")
def server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UiServer]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "mlflow.db")
    with serve_ui(f"sqlite:///{folder}/mlflow.db") as running:
        yield running


def test_the_embedded_store_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert tracking_uri(tmp_path) == "http://elsewhere"


def test_a_run_shows_its_study_settings_and_ending(uri: str, tmp_path: Path) -> None:
    picture = tmp_path / "accuracy.png"
    picture.write_bytes(b"png")
    ends = list(STATUSES)
    told: list[Event] = [event for number, status in enumerate(ends) for event in run_events(number, status)]
    record(uri, tmp_path / "study", [study_started(), *told, study_ended([str(picture), "/nowhere/x.png"])])
    runs = runs_of(uri)
    parent = runs.pop("quickstart")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"] == "Question: How much explanation?\n\nAnswer: Long is best."
    assert parent.data.params["study.stop.rule"] == "median"
    assert parent.data.metrics == {"examples": 640.0}
    files = {file.path for file in MlflowClient(uri).list_artifacts(parent.info.run_id)}
    assert files == {"accuracy.png", "study.json", "system.json"}
    assert sorted(runs) == [run_key(number) for number in range(4)]
    for number, status in enumerate(ends):
        run = runs[run_key(number)]
        tags = run.data.tags
        assert run.info.status == STATUSES[status]
        assert run.info.run_name == f"long · trial-{number:03d} · seed 1"
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert (tags["showhow.status"], tags["showhow.seed"], tags["showhow.level"]) == (status, "1", "long")
        assert tags["showhow.arm"] == "long"
        assert tags.get("showhow.stopped_by") == ("median" if status == "stopped" else None)
        assert tags.get("showhow.reason") == ("loss is not a number" if status == "failed" else None)
        assert (run.info.start_time, run.info.end_time) == (1_000_000, 1_200_000)
        assert len(run.data.params["prompt"]) == 6000
        assert history(uri, run, "validation/accuracy") == [(64 * point, point / 100) for point in range(1, 6)]


def test_datasets_and_replies_are_readable(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path / "study", [study_started(), *run_events(0)])
    run = runs_of(uri)[run_key(0)]
    told = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
    assert told["train"].digest == "0123456789abcdet"
    assert json.loads(told["validation"].profile)["rows"] == 30
    assert json.loads(told["train"].source) == {"uri": "/data/long"}
    table = load_replies(uri, run)
    assert list(table["question"]) == ["1+2", "2+2"]
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "replies/validation.json", "type": "table"}]


def stage(number: int, operation: str, at: float, is_reused: bool = False) -> StageEnded:
    return StageEnded(run_key(number), operation, f"address-{operation}", is_reused, 10, 200, 3e9, 1.5, at)


def load_stages(uri: str, run: Any) -> list[tuple[str, bool, int]]:
    with _use_tracking_uri(uri):
        table = MlflowClient().load_table(run.info.experiment_id, "stages.json", [run.info.run_id])
    columns = zip(table["stage"], table["reused"], table["tokens"], strict=True)
    return [(str(name), bool(is_reused), int(tokens)) for name, is_reused, tokens in columns]


def test_the_stages_of_a_run_are_a_table_with_their_cost_however_often_they_are_sent(uri: str, tmp_path: Path) -> None:
    first = [study_started(), run_started(0), stage(0, "reply", 1001.0), stage(0, "train", 1002.0, is_reused=True)]
    rows = [("reply", False, 200), ("train", True, 200)]
    for _ in range(2):
        record(uri, tmp_path / "study", first)
        run = runs_of(uri)[run_key(0)]
        assert load_stages(uri, run) == rows
        assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "stages.json", "type": "table"}]
    record(uri, tmp_path / "study", [*first, run_started(0, attempt=2, start=1003.0), stage(0, "train", 1004.0)])
    assert load_stages(uri, runs_of(uri)[run_key(0)]) == [("train", False, 200)]


def counts(file: Path) -> dict[str, int]:
    tables = ("runs", "metrics", "params", "tags", "datasets", "inputs", "experiments", "experiment_tags")
    with sqlite3.connect(file) as connection:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}  # noqa: S608


@pytest.mark.parametrize("end", [4, 9, 16], ids=["amid reports", "amid runs", "complete"])
def test_recording_the_journal_again_changes_nothing(uri: str, tmp_path: Path, end: int) -> None:
    told = [study_started(), *run_events(0), *run_events(1, "failed"), study_ended()][:end]
    record(uri, tmp_path / "study", told)
    once, runs = counts(tmp_path / "mlflow.db"), runs_of(uri)
    for _ in range(2):
        record(uri, tmp_path / "study", told)
        assert counts(tmp_path / "mlflow.db") == once
        again = runs_of(uri)
        assert {key: run.to_dictionary() for key, run in again.items()} == {
            key: run.to_dictionary() for key, run in runs.items()
        }
    if end == 16:
        assert len(load_replies(uri, runs[run_key(0)])) == len(ROWS)


def test_a_resumed_study_continues_the_same_runs(uri: str, tmp_path: Path) -> None:
    first: list[Event] = [study_started(), run_started(0), *reports(0, 3)]
    cut = RunEnded(run_key(0), "interrupted", None, "the driver was told to end", {}, 1010.0)
    stopped = StudyEnded("interrupted", "", [], {}, 1011.0)
    record(uri, tmp_path / "study", [*first, cut, stopped])
    assert {run.info.status for run in runs_of(uri).values()} == {"KILLED"}
    before = {key: run.info.run_id for key, run in runs_of(uri).items()}
    resumed = replace(study_started(), seconds_since_epoch=2000.0)
    changed = replace(run_started(0, attempt=2, start=2001.0), params={"learning_rate": 2e-3, "new": 1})
    more = [event for event in reports(0, 5, start=2002.0) if isinstance(event, Reported) and event.examples > 192]
    end = RunEnded(run_key(0), "finished", None, None, {}, 2100.0)
    record(uri, tmp_path / "study", [resumed, changed, *more, end, replace(study_ended(), seconds_since_epoch=2101.0)])
    after = runs_of(uri)
    assert {key: run.info.run_id for key, run in after.items()} == before
    run = after[run_key(0)]
    assert history(uri, run, "validation/accuracy") == [(64 * point, point / 100) for point in range(1, 6)]
    assert (run.info.status, run.data.tags["showhow.attempt"]) == ("FINISHED", "2")
    assert "showhow.reason" not in run.data.tags
    assert "mlflow.note.content" not in run.data.tags
    assert (run.data.params["learning_rate"], run.data.params["new"]) == ("0.001", "1")
    assert after["quickstart"].info.status == "FINISHED"


def test_a_run_that_goes_on_from_a_checkpoint_shows_its_notes_and_no_point_twice(uri: str, tmp_path: Path) -> None:
    again = [
        run_started(0, attempt=2, start=1100.0),
        RunNoted(run_key(0), "resumed", 128, "goes on after 128 examples", 1101.0),
        *reports(0, 5, start=1102.0)[2:],  # the third was told, but not yet saved, when the process died
        RunNoted(run_key(0), "adapted", 320, "micro-batches of 16", 1110.0),
    ]
    told = [study_started(), run_started(0), *reports(0, 3), *again]
    for events in (told, told, [*told, run_started(0, attempt=3, start=1200.0), *reports(0, 2, start=1201.0)]):
        record(uri, tmp_path / "study", events)
        run = runs_of(uri)[run_key(0)]
        assert history(uri, run, "validation/accuracy") == [(64 * point, point / 100) for point in range(1, 6)]
        resumed, adapted = run.data.tags["showhow.notes"].splitlines()
        assert resumed == "1970-01-01 00:18:21 UTC, 128 examples, resumed: goes on after 128 examples"
        assert "320 examples, adapted: micro-batches of 16" in adapted
        assert run.data.tags["mlflow.note.content"] == f"- {resumed}\n- {adapted}"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("finished", ""),
        ("stopped", "Stopped early by the rule median.\n\n"),
        ("failed", "Failed: loss is not a number\n\n"),
    ],
)
def test_the_page_of_a_run_that_ended_tells_how_and_what_happened_on_the_way(
    uri: str, tmp_path: Path, status: str, told: str
) -> None:
    noted = RunNoted(run_key(0), "adapted", 64, "ran out of memory; is now micro-batches of 16", 1001.0)
    start, *rest = run_events(0, status)
    record(uri, tmp_path / "study", [study_started(), start, noted, *rest])
    description = runs_of(uri)[run_key(0)].data.tags["mlflow.note.content"]
    note = "1970-01-01 00:16:41 UTC, 64 examples, adapted: ran out of memory; is now micro-batches of 16"
    assert description == f"{told}- {note}"


def test_a_fresh_folder_starts_new_runs_and_no_folder_goes_by_the_definition(uri: str, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        record(uri, tmp_path / folder, [study_started()])
    assert study_identity(tmp_path / "one") != study_identity(tmp_path / "two")
    for _ in range(2):
        tracker = MlflowTracker(uri)
        tracker.record(study_started())
        tracker.close()
    assert counts(tmp_path / "mlflow.db")["runs"] == 3


def test_wild_metrics_arrive_once(uri: str, tmp_path: Path) -> None:
    wild = Reported(run_key(0), 64, {"train_loss": float("nan"), "gradient_norm": float("inf")}, 1001.0)
    for _ in range(2):
        record(uri, tmp_path / "study", [study_started(), run_started(0), wild])
    run = runs_of(uri)[run_key(0)]
    assert len(history(uri, run, "train_loss")) == 1
    assert len(history(uri, run, "gradient_norm")) == 1


def test_replaying_a_study_of_24_runs_takes_seconds(uri: str, tmp_path: Path) -> None:
    told: list[Event] = [study_started(), *(event for number in range(24) for event in run_events(number, points=40))]
    tracker = MlflowTracker(uri, tmp_path / "study")
    start = time.monotonic()
    for event in told:
        tracker.record(event)
    assert time.monotonic() - start < 0.5, "recording does not wait"
    tracker.close()
    start = time.monotonic()
    record(uri, tmp_path / "study", told)
    assert time.monotonic() - start < 10.0
    assert counts(tmp_path / "mlflow.db")["metrics"] == 24 * 40 * 2


def test_no_secret_is_written(uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failed = RunEnded(run_key(0), "failed", None, f"no http://me:{SECRET}@host/x", {"at": f"s3://a:{SECRET}@b"}, 1200.0)
    told: list[Event] = [
        study_started(),
        *run_events(0)[:-1],
        failed,
        replace(study_ended(), conclusion=f"ftp://a:{SECRET}@b"),
    ]
    record(uri, tmp_path / "study", told)
    with caplog.at_level(logging.DEBUG, "showhow"):
        record(f"http://me:{SECRET}@127.0.0.1:1", tmp_path / "other", [study_started()], timeout_seconds=1.0)
    assert "1 events did not reach MLflow" in caplog.text
    assert SECRET not in caplog.text
    assert "***@" in (tmp_path / "mlflow.db").read_bytes().decode(errors="replace")
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes(), file


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers everything with 401."""

    def do_POST(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"You are not authenticated.")

    do_GET = do_POST  # noqa: N815 - the names are http.server's

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://me:{SECRET}@127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_a_server_that_lets_nobody_in_is_a_users_error(refusing: str) -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_TOKEN") as caught:
        check_reachable(refusing)
    assert SECRET not in str(caught.value)


def test_a_server_that_is_not_there_or_never_answers_is_a_users_error_soon() -> None:
    before = dict(os.environ)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for uri in (f"http://127.0.0.1:{silent.getsockname()[1]}", "http://127.0.0.1:1"):
            start = time.monotonic()
            with pytest.raises(UserError, match="unset MLFLOW_TRACKING_URI"):
                check_reachable(uri)
            assert time.monotonic() - start < 10.0
    assert dict(os.environ) == before


@pytest.mark.parametrize("uri", ["file:///data/runs", "/data/runs", "runs", "sqlite://", "ftp://host/x", ""])
def test_an_address_that_mlflow_cannot_use_is_a_users_error(uri: str) -> None:
    with pytest.raises(UserError, match="sqlite:///"):
        check_reachable(uri)


def test_a_sqlite_folder_is_created_and_a_file_that_is_no_database_refused(tmp_path: Path) -> None:
    check_reachable(f"sqlite:///{tmp_path}/new/folder/mlflow.db")
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "text").write_text("not a database at all")
    with pytest.raises(UserError, match="not a sqlite database"):
        check_reachable(f"sqlite:///{tmp_path}/text")


def test_a_server_shows_the_same_as_a_file(server: UiServer, tmp_path: Path) -> None:
    check_reachable(server.address)
    wild = Reported(run_key(0), 99, {"train_loss": float("nan"), "gradient_norm": float("inf")}, 1090.0)
    told = run_events(0, "stopped")
    told.insert(3, wild)
    for _ in range(2):
        record(server.address, tmp_path / "study", [study_started(), *told, study_ended()])
    run = runs_of(server.address)[run_key(0)]
    assert run.info.status == "KILLED"
    assert len(history(server.address, run, "train_loss")) == 6
    assert len(load_replies(server.address, run)) == len(ROWS)
    pages = publish_views(server.address, tmp_path / "study", server.address)
    assert sorted(pages) == ["arms", "study"]
    with pytest.raises(UserError, match="contains no runs"):
        publish_views(server.address, tmp_path / "never run", server.address)


def test_a_server_killed_in_the_middle_loses_nothing(empty_store: Path, tmp_path: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    told: list[Event] = [
        study_started(),
        *(event for number in range(4) for event in run_events(number, points=20)),
        study_ended(),
    ]
    running = serve_ui(store)
    port = int(running.address.rpartition(":")[2])
    tracker = MlflowTracker(running.address, tmp_path / "study")
    for event in told[:40]:
        tracker.record(event)
    deadline = time.monotonic() + 60
    while counts(tmp_path / "mlflow.db")["metrics"] == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(running.process.pid, signal.SIGKILL)
    running.stop()
    for event in told[40:]:
        tracker.record(event)
    time.sleep(1.5)
    with serve_ui(store, port=port):
        tracker.close(90)
    runs = runs_of(store)
    assert len(runs) == 5
    assert all(run.info.status == "FINISHED" for run in runs.values())
    for number in range(4):
        assert len(history(store, runs[run_key(number)], "train_loss")) == 20


def test_stopping_the_server_leaves_no_process(empty_store: Path, tmp_path: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with serve_ui(f"sqlite:///{tmp_path}/mlflow.db") as running:
        group = running.process.pid
        os.killpg(group, 0)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(running.address.rpartition(":")[2]))) != 0


def test_a_server_ends_with_whoever_started_it(empty_store: Path, tmp_path: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    program = (
        "import sys, time; from showhow.tracking.mlflow.server import serve_ui; server = serve_ui(sys.argv[1]);"
        "print(server.process.pid, flush=True); time.sleep(600)"
    )
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    starter = subprocess.Popen([sys.executable, "-c", program, uri], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    group = int(starter.stdout.readline())
    starter.kill()
    starter.communicate()
    deadline = time.monotonic() + 20
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(group) == []


def members(group: int) -> list[int]:
    """Processes of a group that run; one that ended and was not waited for (state Z) does not."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_server_listens_to_this_machine_only_unless_told(uri: str) -> None:
    with pytest.raises(UserError, match="no password"):
        serve_ui(uri, host="0.0.0.0")  # noqa: S104 - it is refused
    with pytest.raises(UserError, match="already is a server"):
        serve_ui("http://127.0.0.1:5000")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="nothing else uses"):
            serve_ui(uri, port=taken.getsockname()[1])


def test_two_processes_may_begin_with_the_same_empty_store_at_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    code = (
        "import sys; from showhow.tracking.mlflow.runs import StudyRuns; "
        "print(StudyRuns(sys.argv[1], sys.argv[2], None)._client.search_experiments()[0].name)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, uri, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in ("one", "two")
    ]
    for process in both:
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
        assert out.decode().split() == ["Default"]
