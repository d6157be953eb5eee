"""Interruptions of every kind: what was reported is kept, runs are marked, and the same command goes on."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import Event, Reported, RunEnded, RunStarted

LONG_RUNS = ("--set", "recipe.max_examples=3200", "evaluation.every_examples=80")


def wait_for(process: subprocess.Popen[str], journal: Path, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """Wait until the journal of a running study tells enough."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        events = read_events(journal)
        if enough(events):
            return events
        time.sleep(0.1)
    raise TimeoutError(f"{journal} did not tell enough in time")


def reports(events: list[Event]) -> dict[tuple[str, int], float]:
    return {(event.run, event.examples): event.metrics["train_loss"] for event in events if isinstance(event, Reported)}


def ended(events: list[Event], status: str) -> set[str]:
    last = {event.run: event.status for event in events if isinstance(event, RunEnded)}
    return {run for run, found in last.items() if found == status}


def processes_of(home: Path) -> list[int]:
    """Ids of processes whose environment names this home: the driver's Ray processes inherit it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"SHOWHOW_HOME={home}".encode() in (entry / "environ").read_bytes().split(
                b"\0"
            ):
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def go_on(showhow, tiny_file: Path, home: Path, before: list[Event]) -> list[Event]:
    """Run the study again; return its events, after checking that nothing was lost and nothing done twice."""
    process = showhow("run", tiny_file, *LONG_RUNS, home=home)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, output + errors
    events = read_events(home / "tiny" / "journal.jsonl")
    assert events[: len(before)] == before
    assert len(ended(events, "finished")) == 4
    started_again = {event.run for event in events[len(before) :] if isinstance(event, RunStarted)}
    assert started_again.isdisjoint(ended(before, "finished"))
    known = reports(before)
    assert all(loss == known.get(key, loss) for key, loss in reports(events).items())
    return events


def test_ctrl_c_marks_the_runs_and_the_same_command_goes_on(tiny_file: Path, showhow, tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = showhow("run", tiny_file, *LONG_RUNS, home=home)
    wait_for(process, home / "tiny" / "journal.jsonl", lambda events: len(reports(events)) > 10)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group hears it
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "go on with: showhow run" in output
    assert "Traceback" not in errors
    before = read_events(home / "tiny" / "journal.jsonl")
    assert ended(before, "interrupted")
    events = go_on(showhow, tiny_file, home, before)
    attempts = {event.run: event.attempt for event in events if isinstance(event, RunStarted)}
    assert max(attempts.values()) == 2


def test_a_killed_driver_loses_nothing_and_leaves_no_process(tiny_file: Path, showhow, tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = showhow("run", tiny_file, *LONG_RUNS, home=home)
    journal = home / "tiny" / "journal.jsonl"
    wait_for(process, journal, lambda events: len(reports(events)) > 10)
    process.kill()
    process.wait(timeout=30)
    before = read_events(journal)
    assert len(reports(before)) > 10
    deadline = time.monotonic() + 120  # agents of Ray look for its head for a minute
    while processes_of(home) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert processes_of(home) == []
    results = showhow("results", "tiny", home=home)
    output, errors = results.communicate(timeout=60)
    assert results.returncode == 0, errors
    assert "nothing to compare" in output or "interrupted" in output
    go_on(showhow, tiny_file, home, before)


def test_a_killed_trial_process_is_tried_again_while_its_siblings_go_on(
    tiny_file: Path, showhow, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    process = showhow("run", tiny_file, *LONG_RUNS, home=home)
    journal = home / "tiny" / "journal.jsonl"
    wait_for(process, journal, lambda events: len(reports(events)) > 10)
    victims = [pid for pid in processes_of(home) if re.match(rb"ray::(ImplicitFunc|run_trial)", command_line(pid))]
    os.kill(victims[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, output + errors
    events = read_events(journal)
    assert len(ended(events, "finished")) == 4
    attempts = [event.attempt for event in events if isinstance(event, RunStarted)]
    assert max(attempts) == 2
    assert "attempt 2" in output


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_failed_run_is_recorded_with_its_reason_while_its_siblings_go_on(
    tiny_file: Path, showhow, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    text = tiny_file.read_text().replace("learning_rate = 3e-3\n", "") + (
        '\n[search.learning_rate]\ngrid = [3e-3, 1.0]\n[stop]\nkind = "none"\n'
    )
    study = tmp_path / "failing.toml"
    study.write_text(text)
    process = showhow("run", study, "--set", "recipe.gradient_clip=1e9", home=home)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 1, output + errors
    events = read_events(home / "tiny" / "journal.jsonl")
    failures = [event for event in events if isinstance(event, RunEnded) and event.status == "failed"]
    assert failures
    assert all("training loss" in (event.reason or "") for event in failures)
    assert len(ended(events, "finished")) >= 4
    assert "Traceback" not in errors
