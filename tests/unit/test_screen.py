"""What a person sees of what happens to a run beside its metrics."""

import io

from rich.console import Console

from showhow.screen import LiveTable, PlainLines
from showhow.tracking.tracker import Event, RunEnded, RunNoted, RunStarted

RUN = "trial-000/seed-0"
STARTED = RunStarted(RUN, "trial-000", 0, "long", {"max_examples": 800}, {}, 2, 0.0)
NOTED = RunNoted(RUN, "resumed", 400, "goes on from the checkpoint after 400 examples", 1.0)
ENDED = RunEnded(RUN, "finished", None, None, {}, 2.0)


def test_a_note_is_a_plain_line() -> None:
    out = io.StringIO()
    lines = PlainLines(Console(file=out, width=200))
    for event in (STARTED, NOTED, ENDED):
        lines.record(event)
    started, noted, ended = out.getvalue().splitlines()
    assert started.endswith("trial-000/seed-0 long: started (attempt 2)")
    assert noted.endswith("trial-000/seed-0 long: resumed: goes on from the checkpoint after 400 examples")
    assert ended.endswith("trial-000/seed-0 long: finished")


def test_a_note_stands_in_the_live_table_while_its_run_goes_on() -> None:
    def shown(*events: Event) -> str:
        out = io.StringIO()
        table = LiveTable(Console(file=out, force_terminal=True, width=200, height=30), runs=1)
        for event in events:
            table.record(event)
        table.close()  # it draws once more
        return out.getvalue()

    assert "running, resumed: goes on from the checkpoint after 400 examples" in shown(STARTED, NOTED)
    assert "resumed" not in shown(STARTED, NOTED, ENDED)
