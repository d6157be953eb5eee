"""What a person sees while a study runs: a live table on a terminal, a plain line per event elsewhere.

A watcher of the event stream, like the trackers; it keeps no truth of its own.
"""

import time
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from showhow.metrics import VALIDATION, on_split
from showhow.tracking.tracker import Event, Reported, RunEnded, RunNoted, RunStarted, StudyStarted

_ACCURACY = on_split(VALIDATION, "accuracy")
_BAR_WIDTH = 20


@dataclass
class _Row:
    start: RunStarted
    examples: int = 0
    accuracy: float | None = None
    loss: float | None = None
    state: str = "running"
    note: str = ""
    has_ended: bool = False

    @property
    def budget(self) -> int:
        return int(str(self.start.params["max_examples"]))


class PlainLines:
    """One line per event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}

    def record(self, event: Event) -> None:
        """Print a line for an event that a person wants to hear of."""
        match event:
            case RunStarted():
                self._rows[event.run] = _Row(event)
                again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
                self._say(event, f"{event.run} {event.arm}: started{again}")
            case Reported():
                row = self._rows[event.run]
                accuracy, loss = event.metrics[_ACCURACY], event.metrics["train_loss"]
                self._say(
                    event,
                    f"{event.run} {row.start.arm}: {event.examples:,} of {row.budget:,} examples, "
                    f"accuracy {accuracy:.2f}, loss {loss:.3f}",
                )
            case RunNoted() if event.run in self._rows:
                self._say(event, f"{event.run} {self._rows[event.run].start.arm}: {_noted(event)}")
            case RunEnded() if event.run in self._rows:
                self._say(event, f"{event.run} {self._rows[event.run].start.arm}: {_ending(event)}")

    def say(self, line: str) -> None:
        """Print what goes on beside the runs."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is left to print."""

    def _say(self, event: RunStarted | Reported | RunNoted | RunEnded, line: str) -> None:
        self.say(f"{time.strftime('%H:%M:%S', time.localtime(event.seconds_since_epoch))} {line}")


class LiveTable:
    """A table of the runs that is drawn anew as they go on. Runs that ended earlier make way when the screen is
    full."""

    def __init__(self, console: Console, runs: int) -> None:
        """`runs`: how many the study has in all, at most."""
        self._console, self._runs = console, runs
        self._rows: dict[str, _Row] = {}
        self._started = time.monotonic()
        self._note = "starting"
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def record(self, event: Event) -> None:
        """Note an event; the table shows it with its next drawing."""
        match event:
            case StudyStarted():
                self._note = "starting the processes that train"
            case RunStarted():
                self._note = ""
                self._rows.pop(event.run, None)
                self._rows[event.run] = _Row(event)
            case Reported() if event.run in self._rows:
                row = self._rows[event.run]
                row.examples, row.loss = event.examples, event.metrics["train_loss"]
                row.accuracy = event.metrics[_ACCURACY]
            case RunNoted(kind="starting" | "started") if event.run in self._rows:
                self._rows[event.run].state = event.text if event.kind == "starting" else "running"
            case RunNoted() if event.run in self._rows:
                self._rows[event.run].note = _noted(event)
            case RunEnded() if event.run in self._rows:
                row = self._rows[event.run]
                row.state, row.has_ended = _ending(event), True

    def say(self, line: str) -> None:
        """Show what goes on before the first run."""
        self._note = line

    def close(self) -> None:
        """Take the table off the screen; the result follows in its place."""
        self._live.stop()

    def _draw(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for header in ("run", "explanation", "progress", "accuracy", "loss", "state"):
            table.add_column(header, no_wrap=True, overflow="ellipsis")
        rows = list(self._rows.values())  # copied in one step: this is another thread than the one that records
        running = [row for row in rows if not row.has_ended]
        ended = [row for row in rows if row.has_ended]
        room = max(0, self._console.height - len(running) - 5)
        for row in (*ended[len(ended) - min(room, len(ended)) :], *running):
            table.add_row(*map(Text, _cells(row)))
        seconds = int(time.monotonic() - self._started)
        line = f"{len(ended)} of {self._runs} runs ended, {len(running)} running · {seconds // 60}:{seconds % 60:02d}"
        return Group(table, Text(f"{line} · {self._note}" if self._note else line))


def _cells(row: _Row) -> tuple[str, ...]:
    filled = round(_BAR_WIDTH * row.examples / row.budget)
    bar = "━" * filled + "·" * (_BAR_WIDTH - filled)
    return (
        row.start.run,
        row.start.arm,
        f"{bar} {row.examples:,}",
        "-" if row.accuracy is None else f"{row.accuracy:.2f}",
        "-" if row.loss is None else f"{row.loss:.3f}",
        f"{row.state}, {row.note}" if row.note and not row.has_ended else row.state,
    )


def _noted(event: RunNoted) -> str:
    return event.text if event.kind in ("starting", "started") else f"{event.kind}: {event.text}"


def _ending(event: RunEnded) -> str:
    match event.status:
        case "finished":
            return "reached its goal" if event.outcome.get("reached_goal") else "finished"
        case "stopped":
            return f"stopped early by {event.stopped_by}"
        case "failed":
            return f"failed: {event.reason}"
        case "interrupted":
            return "interrupted"
