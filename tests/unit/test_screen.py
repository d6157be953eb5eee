"""What a person sees of what happens to a run beside its metrics."""

import io
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from showhow.cli.screen import LiveTable, PlainLines
from showhow.tracking.tracker import Event, Reported, RunEnded, RunNoted, RunStarted

RUN = "trial-000/seed-0"
STARTED = RunStarted(RUN, "trial-000", 0, "long", {}, {}, 2, 0.0, "long", budget=800.0)
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


def drawn(*events: Event, by: Sequence[str] = ("explanation",)) -> str:
    """The live table after some events of a study that compares the axes `by`."""
    out = io.StringIO()
    table = LiveTable(Console(file=out, force_terminal=True, width=200, height=30), runs=1, by=by)
    for event in events:
        table.record(event)
    table.close()  # it draws once more
    return out.getvalue()


def test_a_note_is_in_the_live_table_while_its_run_is_under_way() -> None:
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


def reported(run: str, examples: int, tokens: int = 0, flops: float = 0.0) -> Reported:
    metrics = {"examples": float(examples), "tokens": float(tokens), "flops": flops}
    return Reported(run, examples, metrics | {"train_loss": 1.5, "validation/accuracy": 0.25}, 1.5)


def test_progress_is_a_share_of_the_budget_in_its_unit() -> None:
    assert told(STARTED, reported(RUN, 400))[1].endswith("400 of 800 examples, accuracy 0.25, loss 1.500")
    by_flops = replace(STARTED, unit="flops", budget=3e13)
    assert "1.5e+13 of 3e+13 FLOPs" in told(by_flops, reported(RUN, 100, flops=1.5e13))[1]
    assert "━" * 10 + "·" * 10 + " 1.5e+13" in drawn(by_flops, reported(RUN, 100, flops=1.5e13))
    by_tokens = replace(STARTED, unit="tokens", budget=40_000.0)
    assert "━" * 5 + "·" * 15 + " 10,000" in drawn(by_tokens, reported(RUN, 100, tokens=10_000))


def test_the_column_of_arms_is_called_after_the_axis_that_is_compared_also_before_the_first_run() -> None:
    assert "explanation" in drawn()
    by_method = drawn(replace(STARTED, arm="mixup"), by=("method",))
    assert "method" in by_method
    assert "arm" in drawn(replace(STARTED, arm="mixup, long"), by=("method", "explanation"))
    for text in (drawn(by=("method",)), by_method):
        assert "explanation" not in text


def test_settings_are_shown_in_words_where_there_are_several() -> None:
    small = replace(STARTED, setting={"model.layers": 1})
    large = replace(STARTED, run="trial-001/seed-0", setting={"model.layers": 4}, attempt=1)
    assert "setting" not in drawn(small)
    both = drawn(small, large)
    assert "setting" in both
    assert "layers 1" in both
    assert "layers 4" in both
    assert told(large)[0].endswith("trial-001/seed-0 long, layers 4: started")


def test_a_resumed_run_shows_the_progress_of_its_checkpoint() -> None:
    again = replace(STARTED, attempt=3, seconds_since_epoch=3.0)
    resumed = RunNoted(RUN, "resumed", 400, "goes on from the checkpoint after 400 examples", 4.0)
    last = drawn(STARTED, reported(RUN, 400), reported(RUN, 480), again, resumed).rpartition("state")[2]
    assert "━" * 10 + "·" * 10 + " 400" in last
