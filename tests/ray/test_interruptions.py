"""Interruptions of every kind: what was reported is kept, runs are marked, and the same command goes on."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from showhow.evidence.journal import read_outcomes
from showhow.evidence.outcome import RunOutcome
from showhow.study.study import Study
from showhow.sweep.run_study import run_study
from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import Event, Reported, RunEnded, RunNoted, RunStarted

SAVE_AT_EACH_REPORT = "checkpoints.every_minutes=0"
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
    process = showhow("run", tiny_file, *LONG_RUNS, SAVE_AT_EACH_REPORT, home=home)
    wait_for(process, home / "tiny" / "journal.jsonl", lambda events: len(reports(events)) > 10)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group hears it
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "resume with: showhow run" in output
    assert "Traceback" not in errors
    before = read_events(home / "tiny" / "journal.jsonl")
    assert ended(before, "interrupted")
    events = go_on(showhow, tiny_file, home, before)
    attempts = {event.run: event.attempt for event in events if isinstance(event, RunStarted)}
    assert max(attempts.values()) == 2
    resumed = {event.run for event in events if isinstance(event, RunNoted) and event.kind == "resumed"}
    assert resumed
    assert resumed <= ended(before, "interrupted")
    left = list((home / "tiny" / "checkpoints").glob("*/*"))
    assert 0 < len(left) <= 4, "the weights of the best three, and of the best of each level"
    for run in left:
        (weights,) = run.iterdir()
        assert list(weights.glob("weights-*"))
        assert not list(weights.glob("optimizer-*"))


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


def test_a_killed_trial_process_goes_on_from_its_checkpoint_while_its_sibling_goes_on(
    tiny_file: Path, showhow, tmp_path: Path
) -> None:
    home, one_seed = tmp_path / "home", (*LONG_RUNS, "seeds=[0]", SAVE_AT_EACH_REPORT)
    process = showhow("run", tiny_file, *one_seed, home=home)
    journal = home / "tiny" / "journal.jsonl"
    both = ("trial-000/seed-0", "trial-001/seed-0")
    wait_for(process, journal, lambda events: all((run, 5 * 80) in reports(events) for run in both))
    victims = [pid for pid in processes_of(home) if re.match(rb"ray::(ImplicitFunc|run_)", command_line(pid))]
    os.kill(victims[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, output + errors
    assert "attempt 2" in output
    events = read_events(journal)
    assert [event.attempt for event in events if isinstance(event, RunStarted)].count(2) == 1
    (note,) = (event for event in events if isinstance(event, RunNoted))
    assert f"resumed: {note.text}" in output
    told = [event.examples for event in events if isinstance(event, Reported) and event.run == note.run]
    assert note.kind == "resumed"
    again = len(told) - len(set(told))
    assert again <= 3, "the report at the last save, which may not have been heard, and what it trained after that"
    assert sorted(set(told)) == list(range(80, 3201, 80))
    undisturbed = showhow("run", tiny_file, "--name", "quiet", *one_seed, home=home)
    output, errors = undisturbed.communicate(timeout=400)
    assert undisturbed.returncode == 0, output + errors
    assert outcomes(journal) == outcomes(home / "quiet" / "journal.jsonl")


def outcomes(journal: Path) -> list[RunOutcome]:
    found = sorted(read_outcomes(read_events(journal)), key=lambda run: run.trial)
    return [replace(run, seconds=0.0) for run in found]


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


def test_a_run_that_finds_no_room_is_infeasible_while_its_sibling_finishes(tiny_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cramped.toml"
    text = tiny_file.read_text().replace("hidden_size = 32\nlayers = 1", "hidden_size = 768\nlayers = 4")
    path.write_text(text.replace("max_examples = 800", "max_examples = 16").replace("= 80\n", "= 16\n"))
    study = Study.load(path, changes=("seeds=[0]", "recipe.batch_size=4"))

    def cramped(config: dict[str, Any]) -> None:
        import resource
        from pathlib import Path

        from showhow.bench.fine_tune import fine_tune
        from showhow.processes.trial import assignment, run_trial

        run = assignment(config)
        if run.trial.level != "long":
            return run_trial(config)
        small = run.trial.model.model_copy(update={"hidden_size": 32, "layers": 1})
        warm = run.model_copy(update={"trial": run.trial.model_copy(update={"model": small}), "checkpoints": None})
        fine_tune(warm, lambda _metrics: None)  # loads all that is loaded late
        before = resource.getrlimit(resource.RLIMIT_AS)
        addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        # The model takes 113 MB, and its weights laid end to end as much again.
        resource.setrlimit(resource.RLIMIT_AS, (addresses + 180 * 2**20, before[1]))
        try:
            return run_trial(config)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    run_study(study, home=tmp_path / "home", trainable=cramped)
    events = read_events(tmp_path / "home" / "tiny" / "journal.jsonl")
    ends = {event.run: event for event in events if isinstance(event, RunEnded)}
    assert {run: end.status for run, end in ends.items()} == {
        "trial-000/seed-0": "finished",
        "trial-001/seed-0": "failed",
    }
    assert (ends["trial-001/seed-0"].reason or "").startswith("infeasible: out of memory")
    notes = [event.text for event in events if isinstance(event, RunNoted)]
    assert [text.rpartition("is now ")[2] for text in notes] == [
        "micro-batches of 2",
        "micro-batches of 1",
        "micro-batches of 1, activations recomputed",
    ]
