"""Laws of the journal: what was recorded is read back, whatever the crash; what is not an event is named."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.errors import UserError
from showhow.tracking.jsonl import JsonlTracker, decode, encode, read_events
from showhow.tracking.tracker import (
    Event,
    RepliesSampled,
    Reported,
    RunEnded,
    RunNoted,
    RunStarted,
    StudyEnded,
    StudyStarted,
    Tracker,
)

REPORTED = Reported("trial-1/seed-0", 64, {"train_loss": 2.3, "validation/accuracy": 0.1}, 1.5)
EXAMPLES: tuple[Event, ...] = (
    StudyStarted("quickstart", "How much · explanation?", {"levels": ["none", "long"]}, {"cpus": 2}, 1.0),
    RunStarted("trial-1/seed-0", "trial-1", 0, "long", {"learning_rate": 1e-3}, {"train": {"rows": 3}}, 1, 1.2),
    REPORTED,
    RepliesSampled("trial-1/seed-0", "test", [{"question": "1+1", "steps_right": None}], 1.6),
    RunEnded("trial-1/seed-0", "stopped", "median", None, {"grades": [True, False]}, 1.7),
    RunNoted("trial-1/seed-0", "resumed", 64, "goes on after 64 examples", 1.75),
    StudyEnded("finished", "long is best", ["picture.png"], {"examples": 64.0}, 1.8),
)

words = st.text(max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
seconds = st.floats(0, 4e9)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | finite | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(words, values, max_size=3)
measured = st.dictionaries(words, st.floats(), max_size=4)
statuses = st.sampled_from(["finished", "stopped", "failed", "interrupted"])
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(StudyStarted, words, words, objects, objects, seconds),
    st.builds(
        RunStarted,
        words,
        words,
        st.integers(),
        words,
        objects,
        st.dictionaries(words, objects, max_size=2),
        st.integers(1),
        seconds,
    ),
    st.builds(Reported, words, st.integers(0), measured, seconds),
    st.builds(RunNoted, words, st.sampled_from(["resumed", "adapted"]), st.integers(0), words, seconds),
    st.builds(RepliesSampled, words, words, st.lists(objects, max_size=2), seconds),
    st.builds(RunEnded, words, statuses, st.none() | words, st.none() | words, objects, seconds),
    st.builds(StudyEnded, statuses, words, st.lists(words, max_size=2), measured, seconds),
)


def write(path: Path, recorded: list[Event] | tuple[Event, ...]) -> Path:
    tracker: Tracker = JsonlTracker(path)
    for event in recorded:
        tracker.record(event)
    tracker.close()
    return path


def same(one: Event, other: Event) -> bool:
    """Equal, where NaN equals NaN."""
    return type(one) is type(other) and repr(one) == repr(other)


@given(st.lists(events, max_size=6))
@settings(max_examples=50, deadline=None)
def test_any_event_is_read_back_as_it_was_recorded(recorded: list[Event]) -> None:
    lines = [encode(event) for event in recorded]
    assert all(line.isascii() and "\n" not in line for line in lines)
    assert all(same(decode(line), event) for line, event in zip(lines, recorded, strict=True))


def test_a_journal_is_read_back_as_it_was_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "deep" / "journal.jsonl", EXAMPLES)
    assert read_events(path) == list(EXAMPLES)
    assert len(path.read_bytes().splitlines()) == len(EXAMPLES)


def test_a_journal_that_does_not_exist_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none.jsonl") == []


def test_a_journal_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for event in EXAMPLES:
        write(path, [event])
    assert read_events(path) == list(EXAMPLES)


def test_a_diverged_metric_survives_and_every_line_is_strict_json(tmp_path: Path) -> None:
    wild = replace(REPORTED, metrics={"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0})
    path = write(
        tmp_path / "journal.jsonl", [wild, replace(EXAMPLES[4], outcome={"x": math.nan, "y": [math.inf, 1.0]})]
    )  # type: ignore[call-arg]
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    first, second = read_events(path)
    assert same(first, wild)
    assert isinstance(second, RunEnded)
    assert second.outcome == {"x": None, "y": [None, 1.0]}


@pytest.mark.parametrize("last", EXAMPLES, ids=lambda event: type(event).__name__)
def test_a_crash_at_any_byte_of_the_last_line_loses_that_line_at_most(tmp_path: Path, last: Event) -> None:
    path = write(tmp_path / "journal.jsonl", [REPORTED, last])
    content = path.read_bytes()
    first_end = content.index(b"\n") + 1
    for end in range(first_end, len(content) + 1):
        path.write_bytes(content[:end])
        complete = [REPORTED, last] if end >= len(content) - 1 else [REPORTED]
        assert read_events(path) == complete
        assert path.read_bytes() == content[:end], "reading changes nothing"
        if end % 11 == 0 or end > len(content) - 3:
            write(path, [REPORTED])
            assert read_events(path) == [*complete, REPORTED]


def test_what_a_crash_cut_is_kept_aside(tmp_path: Path) -> None:
    path = write(tmp_path / "journal.jsonl", [REPORTED])
    with path.open("ab") as file:
        file.write(b'{"event":"Repor')
    write(path, [])
    assert (tmp_path / "journal.jsonl.cut").read_bytes() == b'{"event":"Repor\n'
    assert read_events(path) == [REPORTED]


def test_a_block_of_zeros_after_a_power_cut_is_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "journal.jsonl", [REPORTED])
    with path.open("ab") as file:
        file.write(b"\0" * 4096)
    assert read_events(path) == [REPORTED]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"event":"Repor', "Unterminated"),
        ("[1]", "not an object"),
        ('{"event":"Reportd"}', 'Did you mean "Reported"'),
        ('{"event":"Reported","run":"a"}', "examples"),
        (encode(REPORTED).replace("64", '"64"'), "Reported.examples"),
        (encode(REPORTED).replace("2.3", '"2.3"'), "Reported.metrics"),
        (encode(EXAMPLES[4]).replace('"stopped"', '"done"'), "RunEnded.status"),
        (encode(REPORTED).replace('"run"', '"extra":1,"run"'), "extra"),
    ],
)
def test_a_bad_line_in_the_middle_is_named_with_its_file_and_number(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f"{encode(REPORTED)}\n{line}\n{encode(REPORTED)}\n")
    with pytest.raises(UserError, match="line 2") as caught:
        read_events(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="line 2"):
        JsonlTracker(path)


def test_two_processes_do_not_write_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = JsonlTracker(path)
    with pytest.raises(UserError, match="another process is writing"):
        JsonlTracker(path)
    first.close()
    JsonlTracker(path).close()


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "journal.jsonl")
    tracker.close()
    tracker.close()


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "journal.jsonl")

    def report(run: int) -> None:
        for examples in range(50):
            tracker.record(Reported(f"run-{run}", examples, {"train_loss": 1.0}, 0.0))

    threads = [threading.Thread(target=report, args=(run,)) for run in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracker.close()
    found: dict[str, list[int]] = {}
    for event in read_events(tmp_path / "journal.jsonl"):
        assert isinstance(event, Reported)
        found.setdefault(event.run, []).append(event.examples)
    assert sorted(found) == [f"run-{run}" for run in range(4)]
    assert all(order == list(range(50)) for order in found.values())


def test_a_killed_process_loses_nothing_it_recorded(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = (
        "import sys, time; from pathlib import Path; from showhow.tracking.jsonl import JsonlTracker;"
        "from showhow.tracking.tracker import Reported; tracker = JsonlTracker(Path(sys.argv[1]))\n"
        "for examples in range(10**9):\n"
        "    tracker.record(Reported('run', examples, {}, 0.0)); print(examples, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(next(process.stdout)) for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    said += [int(line) for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    recorded: list[Any] = [event.examples for event in read_events(path) if isinstance(event, Reported)]
    assert recorded[: len(said)] == said
