"""What a person sees of what happens to a run beside its metrics."""

import io

from rich.console import Console

from showhow.cli.screen import LiveTable, PlainLines
from showhow.tracking.tracker import Event, RunEnded, RunNoted, RunStarted

RUN = "trial-000/seed-0"
STARTED = RunStarted(RUN, "trial-000", 0, "long", {"max_examples": 800}, {}, 2, 0.0)
NOTED = RunNoted(RUN, "resumed", 400, "goes on from the checkpoint after 400 examples", 1.0)
ENDED = RunEnded(RUN, "finished", None, None, {}, 2.0)


def told(*events: Event) -> list[str]:
    """The plain lines of some events."""
    out = io.StringIO()
    lines = PlainLines(Console(file=out, width=200))
    for event in events:
        lines.record(event)
    return out.getvalue().splitlines()


def test_a_note_is_a_plain_line() -> None:
    started, noted, ended = told(STARTED, NOTED, ENDED)
    assert started.endswith("trial-000/seed-0 long: started (attempt 2)")
    assert noted.endswith("trial-000/seed-0 long: resumed: goes on from the checkpoint after 400 examples")
    assert ended.endswith("trial-000/seed-0 long: finished")


def drawn(*events: Event) -> str:
    """The live table after some events."""
    out = io.StringIO()
    table = LiveTable(Console(file=out, force_terminal=True, width=200, height=30), runs=1)
    for event in events:
        table.record(event)
    table.close()  # it draws once more
    return out.getvalue()


def test_a_note_stands_in_the_live_table_while_its_run_goes_on() -> None:
    assert "running, resumed: goes on from the checkpoint after 400 examples" in drawn(STARTED, NOTED)
    assert "resumed" not in drawn(STARTED, NOTED, ENDED)


def test_the_seconds_in_which_the_processes_of_a_run_start_are_told() -> None:
    starting = RunNoted(RUN, "starting", 0, "starting 2 processes", 1.0)
    started = RunNoted(RUN, "started", 0, "2 processes started", 2.0)
    at_first, later = (drawn(STARTED, starting, *more).rpartition("state")[2] for more in ((), (started,)))
    assert "starting 2 processes" in at_first
    assert "0 of 1 runs ended, 1 running" in at_first
    assert "start" not in later
    _, first, second = told(STARTED, starting, started)
    assert first.endswith("trial-000/seed-0 long: starting 2 processes")
    assert second.endswith("trial-000/seed-0 long: 2 processes started")
