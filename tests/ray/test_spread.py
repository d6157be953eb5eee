"""Trials of several processes: the same results, the same record, and nothing left behind, whatever happens to them."""

import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from ray.util import placement_group_table
from test_interruptions import command_line

import ray
from showhow.study.study import Study
from showhow.sweep.run_study import run_study
from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import Event, Reported, RunEnded, RunNoted, RunStarted

ALIKE = ("seeds=[0]", "recipe.precision=float32", "recipe.learning_rate=1e-3")
DEVICES = {"two": "resources.devices_per_trial=2", "one": "resources.devices_per_trial=1"}


@pytest.fixture(scope="module")
def home(tiny_file: Path, showhow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a study whose trials had two devices, and of the same study whose trials had one."""
    home = tmp_path_factory.mktemp("home")
    for name, devices in DEVICES.items():
        process = showhow("run", tiny_file, "--name", name, "--set", devices, *ALIKE, home=home)
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, output + errors
        assert "2 runs." in output, output
        told = re.findall(r"starting 2 processes|2 processes started", output)
        assert told == (["starting 2 processes", "2 processes started"] * 2 if name == "two" else []), output
    return home


def test_two_devices_learn_what_one_learns(home: Path) -> None:
    def metrics(study: str, name: str) -> dict[tuple[str, int], float]:
        events = read_events(home / study / "journal.jsonl")
        return {(event.run, event.examples): event.metrics[name] for event in events if isinstance(event, Reported)}

    assert len(metrics("two", "train_loss")) == 2 * 10
    assert metrics("two", "train_loss") == pytest.approx(metrics("one", "train_loss"), abs=1e-3)
    assert metrics("two", "gradient_norm") == pytest.approx(metrics("one", "gradient_norm"), rel=5e-2)
    assert metrics("two", "tokens") == metrics("one", "tokens")


def test_two_devices_leave_the_record_that_one_leaves(home: Path) -> None:
    def told(study: str) -> list[tuple[str, object]]:
        events = read_events(home / study / "journal.jsonl")
        return sorted((type(event).__name__, getattr(event, "run", "")) for event in events)

    assert told("two") == told("one")
    with sqlite3.connect(home / "mlflow.db") as store:
        runs = store.execute("select status, count(*) from runs group by status").fetchall()
        curves = store.execute(
            "select count(*), sum(key = 'validation/accuracy') from metrics group by run_uuid"
        ).fetchall()
    assert runs == [("FINISHED", 2 * 3)]
    assert all(times == 2 for times in Counter(curves).values()), "once in each study"


def test_more_devices_than_there_are_is_refused_before_anything_starts(
    tiny_file: Path, showhow, tmp_path: Path
) -> None:
    many = ("resources.devices_per_trial=80", "recipe.batch_size=80", "recipe.max_examples=800")
    process = showhow("run", tiny_file, "--set", *many, home=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"takes 80 devices of 1 CPUs and 0 GPUs each, but this machine has room for {os.cpu_count()}" in errors
    assert "set it to at most" in errors
    assert not (tmp_path / "tiny").exists()


STUDY = """
name = "mishaps"
question = "What becomes of the others?"
seeds = [0]
task = { kind = "modular_sum", terms = 3, below = 5, modulus = 5 }
data = { train_examples = 80, eval_examples = 10 }
model = { kind = "scratch", architecture = "llama", hidden_size = 32, layers = 1 }
recipe = { batch_size = 8, max_examples = 800 }
evaluation = { every_examples = 80 }
stop = { kind = "asha", min_trials = 1 }
resources = { devices_per_trial = 2 }
[search]
explanation = { grid = ["none"] }
learning_rate = { grid = [1e-3, 2e-3, 3e-3, 4e-3, 5e-3] }
"""
GOOD, KILLED, AT_ODDS, POOR, TOO_LARGE = (f"trial-{index:03d}/seed-0" for index in range(5))


def mishaps(folder: Path) -> Callable[[dict[str, Any]], None]:
    """What a trial of the study above does. It is sent by value: its processes know nothing of this file."""

    def trial(config: dict[str, Any]) -> None:
        from functools import partial

        from showhow.processes.trial import assignment, carry_out, resources, tell
        from showhow.processes.workers import work_together

        carry_out(
            assignment(config),
            lambda run: work_together(partial(work, run), run.layout.devices, resources(config), tell),
        )

    def work(run: Any, say: Any) -> None:
        import signal
        from time import sleep

        from torch import distributed

        from showhow.errors import OutOfMemoryError, TrialError

        mishap, is_second = run.trial.name, distributed.get_rank() == 1
        metrics = {"examples": 400.0, "train_loss": 9.0 if mishap == "trial-003" else 1.0, "validation/accuracy": 0.5}
        if mishap == "trial-001" and is_second and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if mishap == "trial-002" and is_second:
            raise TrialError("the second cannot go on")
        if mishap == "trial-004" and is_second and run.layout.micro_batch_size > 2:
            raise OutOfMemoryError("the second has no room", 80)
        distributed.barrier()
        say("metrics", metrics)
        if mishap == "trial-003":
            sleep(10_000)
        say("metrics", metrics | {"examples": 800.0, "test/accuracy": 0.5})
        say("outcome", {"reached_goal": False, "grades": "0" * 10, "samples": {}})

    return trial


@dataclass(frozen=True)
class Aftermath:
    events: list[Event]
    reservations: set[str]
    processes: list[bytes]


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """What five trials of two processes leave on a cluster with room for two at once, which lives on."""
    folder = tmp_path_factory.mktemp("mishaps")
    (folder / "mishaps.toml").write_text(STUDY)
    before = dict(os.environ)
    os.environ |= {"MISHAPS": str(folder), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    cluster = Cluster(head_node_args={"num_cpus": 4, "include_dashboard": False}, initialize_head=True)
    try:
        study = Study.load(folder / "mishaps.toml")
        run_study(study, cluster.address, folder, trainable=mishaps(folder))
        ray.init(address=cluster.address, log_to_driver=False)
        reservations = {table["state"] for table in placement_group_table().values()}
        ray.shutdown()
        deadline = time.monotonic() + 20
        while workers_with(f"MISHAPS={folder}") and time.monotonic() < deadline:
            time.sleep(0.5)
        yield Aftermath(
            read_events(folder / "mishaps" / "journal.jsonl"), reservations, workers_with(f"MISHAPS={folder}")
        )
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


def workers_with(setting: str) -> list[bytes]:
    """What Ray's processes that inherited a setting of the environment are at."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and setting.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(command_line(int(entry.name)))
        except OSError:
            continue  # it ended meanwhile
    return [line for line in found if re.match(rb"ray::(?!IDLE|DashboardAgent|RuntimeEnvAgent)", line)]


def ends(aftermath: Aftermath) -> dict[str, tuple[str, str | None]]:
    return {event.run: (event.status, event.reason) for event in aftermath.events if isinstance(event, RunEnded)}


def attempts(aftermath: Aftermath, run: str) -> int:
    return max(event.attempt for event in aftermath.events if isinstance(event, RunStarted) and event.run == run)


def test_a_trial_whose_process_is_killed_is_tried_again_while_its_siblings_go_on(aftermath: Aftermath) -> None:
    assert ends(aftermath)[KILLED] == ("finished", None)
    assert attempts(aftermath, KILLED) == 2
    assert ends(aftermath)[GOOD] == ("finished", None)
    assert attempts(aftermath, GOOD) == 1


def test_what_one_process_cannot_go_on_for_ends_the_trial_though_the_other_waits(aftermath: Aftermath) -> None:
    assert ends(aftermath)[AT_ODDS] == ("failed", "the second cannot go on")
    assert attempts(aftermath, AT_ODDS) == 1


def test_a_trial_without_room_in_one_process_is_laid_out_otherwise(aftermath: Aftermath) -> None:
    assert ends(aftermath)[TOO_LARGE] == ("finished", None)
    notes = [event for event in aftermath.events if isinstance(event, RunNoted)]
    assert {(note.run, note.kind, note.examples) for note in notes} == {(TOO_LARGE, "adapted", 80)}
    assert attempts(aftermath, TOO_LARGE) == 1


def test_a_stopped_trial_gives_its_devices_to_the_next_one(aftermath: Aftermath) -> None:
    assert ends(aftermath)[POOR][0] == "stopped"
    stopped = next(i for i, event in enumerate(aftermath.events) if isinstance(event, RunEnded) and event.run == POOR)
    later = (event for event in aftermath.events[stopped + 1 :] if isinstance(event, RunStarted | RunEnded))
    assert isinstance(next(later), RunStarted), "the next one waited until another run ended"


def test_nothing_is_left_on_a_cluster_that_lives_on(aftermath: Aftermath) -> None:
    assert aftermath.reservations <= {"REMOVED"}
    assert aftermath.processes == []
