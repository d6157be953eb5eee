"""A study from its file to its answer, by the command a user types, in a process of its own."""

import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from showhow.metrics import find
from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import RepliesSampled, Reported, RunEnded, RunStarted, StudyEnded, StudyStarted


@dataclass(frozen=True)
class Finished:
    home: Path
    output: str
    code: int
    ray_logs: Path

    @property
    def folder(self) -> Path:
        return self.home / "tiny"


@pytest.fixture(scope="module")
def finished(tiny_file: Path, showhow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    home = tmp_path_factory.mktemp("home")
    with tempfile.TemporaryDirectory(prefix="ray") as temporary:  # a short path: Ray's sockets lie in it
        process = showhow("run", tiny_file, home=home, RAY_TMPDIR=temporary)
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, output + errors
        yield Finished(home, output, process.returncode, Path(temporary) / "ray" / "session_latest" / "logs")


def test_every_run_starts_reports_and_ends(finished: Finished) -> None:
    events = read_events(finished.folder / "journal.jsonl")
    assert isinstance(events[0], StudyStarted)
    assert isinstance(events[-1], StudyEnded)
    keys = {f"trial-{trial:03d}/seed-{seed}" for trial in (0, 1) for seed in (0, 1)}
    assert {event.run for event in events if isinstance(event, RunStarted)} == keys
    assert {event.run for event in events if isinstance(event, RunEnded) and event.status == "finished"} == keys
    for key in keys:
        reported = [event.examples for event in events if isinstance(event, Reported) and event.run == key]
        assert reported == list(range(80, 801, 80))
        assert {event.split for event in events if isinstance(event, RepliesSampled) and event.run == key} == {
            "test",
            "longer",
        }


def test_runs_are_trained_by_the_processes_that_were_made_ready(finished: Finished) -> None:
    started = re.findall(r"Started worker process with pid (\d+)", (finished.ray_logs / "raylet.out").read_text())
    for process in started[: os.cpu_count()]:
        (log,) = finished.ray_logs.glob(f"python-core-worker-*_{process}.log")
        assert "Creating actor" in log.read_text(), "Ray Tune asked for processes of another kind"


def test_every_metric_reported_is_in_the_catalogue(finished: Finished) -> None:
    events = read_events(finished.folder / "journal.jsonl")
    for name in {name for event in events if isinstance(event, Reported) for name in event.metrics}:
        find(name)


def test_the_datasets_of_all_levels_ask_the_same_questions(finished: Finished) -> None:
    starts = [event for event in read_events(finished.folder / "journal.jsonl") if isinstance(event, RunStarted)]
    manifests = {event.level: event.datasets["train"] for event in starts}
    assert manifests["none"]["rows"] == manifests["long"]["rows"] == 80
    assert manifests["none"]["fingerprint"] != manifests["long"]["fingerprint"]
    assert manifests["none"]["chance"] == 0.2


def test_the_output_is_a_plain_line_per_event_and_then_the_table(finished: Finished) -> None:
    assert "trial-001/seed-0 long: started" in finished.output
    assert "400 of 800 examples" in finished.output
    assert "chance 0.20" in finished.output
    assert "\x1b[" not in finished.output


def test_results_are_shown_again_from_what_is_stored(finished: Finished, showhow) -> None:
    output, _ = showhow("results", "tiny", home=finished.home).communicate(timeout=60)
    assert output.strip() in finished.output
    text, _ = showhow("results", "tiny", "--json", home=finished.home).communicate(timeout=60)
    result = json.loads(text)
    assert [row["arm"] for row in result["rows"]] == ["none", "long"]
    assert json.loads((finished.folder / "results.json").read_text()) == result


def test_a_picture_is_left(finished: Finished) -> None:
    assert (finished.folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_mlflow_has_a_parent_and_a_child_for_each_run(finished: Finished) -> None:
    with sqlite3.connect(finished.home / "mlflow.db") as store:
        parents = store.execute("select count(*) from tags where key = 'mlflow.parentRunId'").fetchone()[0]
        runs = dict(store.execute("select status, count(*) from runs group by status").fetchall())
        steps = store.execute("select count(*) from metrics where key = 'validation/accuracy'").fetchone()[0]
        artifacts = store.execute("select count(*) from inputs").fetchone()[0]
    assert parents == 4
    assert runs == {"FINISHED": 5}
    assert steps == 4 * 10
    assert artifacts > 0


def test_running_a_complete_study_again_changes_nothing(finished: Finished, tiny_file: Path, showhow) -> None:
    before = (finished.folder / "journal.jsonl").read_bytes()
    process = showhow("run", tiny_file, home=finished.home)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "chance 0.20" in output
    assert (finished.folder / "journal.jsonl").read_bytes() == before


def test_a_name_in_use_by_other_content_is_refused(finished: Finished, tiny_file: Path, showhow) -> None:
    process = showhow("run", tiny_file, "--set", "recipe.batch_size=16", home=finished.home)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "recipe.batch_size was 8 and is now 16" in errors
    assert "Traceback" not in errors


def test_the_same_study_under_another_name_gives_the_same_results(finished: Finished, tiny_file: Path, showhow) -> None:
    process = showhow("run", tiny_file, "--name", "again", home=finished.home)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors

    def losses(name: str) -> dict[tuple[str, int], float]:
        events = read_events(finished.home / name / "journal.jsonl")
        return {(e.run, e.examples): e.metrics["train_loss"] for e in events if isinstance(e, Reported)}

    assert losses("again") == losses("tiny")


def test_more_cpus_than_there_are_is_refused_before_anything_starts(tiny_file: Path, showhow, tmp_path: Path) -> None:
    process = showhow("run", tiny_file, "--set", "resources.cpus_per_device=999", home=tmp_path / "home")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "resources.cpus_per_device = 999" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "home" / "tiny").exists(), "a refused study leaves nothing, so that its name stays free"


def test_a_tracking_server_that_does_not_answer_is_refused_at_once(tiny_file: Path, showhow, tmp_path: Path) -> None:
    process = showhow("run", tiny_file, home=tmp_path / "home", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "MLFLOW_TRACKING_URI" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "home" / "tiny").exists()


def test_a_cluster_that_does_not_answer_is_refused(tiny_file: Path, showhow, tmp_path: Path) -> None:
    process = showhow("run", tiny_file, "--address", "127.0.0.1:1", home=tmp_path / "home")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "--address 127.0.0.1:1" in errors
    assert "Traceback" not in errors


def test_the_best_run_is_exported_registered_and_asked(finished: Finished, showhow) -> None:
    process = showhow("export", "tiny", home=finished.home)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "MLflow: models:/tiny/1\n" in output
    process = showhow("predict", "tiny", "1+2 + 3", "--json", home=finished.home)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (answer,) = json.loads(output)
    assert (answer["question"], answer["expected"]) == ("1+2+3=", "1")
