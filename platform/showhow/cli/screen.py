"""The screen while a study runs: a live table on a terminal, a plain line per event elsewhere.

It receives the event stream like the trackers, and saves nothing.
"""

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from showhow.evidence.settings import axis_in_words, settings_in_words
from showhow.evidence.wording import unit_in_words
from showhow.metrics import VALIDATION, on_split
from showhow.tracking.runs import RunRecord, StudyRecord
from showhow.tracking.tracker import Event, Reported, RunEnded, RunNoted, RunStarted, StudyStarted

_VALIDATION = on_split(VALIDATION, "accuracy")
_LONGEST_BAR, _SHORTEST_BAR = 20, 5
_STATE_WIDTH = 21  # of `stopped early by asha`
_GAP = 2  # blanks between columns
_OF_PROCESSES = ("starting", "started")  # kinds of notes on the processes that train together


class PlainLines:
    """One line per event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._study = StudyRecord()

    def record(self, event: Event) -> None:
        """Print a line for an event of interest to the user."""
        self._study.hear(event)
        match event:
            case RunStarted():
                again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
                self._say_of(event, f"started{again}")
            case Reported() if event.run in self._study.runs:
                accuracy, loss = event.metrics[_VALIDATION], event.metrics["train_loss"]
                progress = _progress(self._study.runs[event.run])
                self._say_of(event, f"{progress}, accuracy {accuracy:.2f}, loss {loss:.3f}")
            case RunNoted() if event.run in self._study.runs:
                self._say_of(event, _noted(event))
            case RunEnded() if event.run in self._study.runs:
                self._say_of(event, _ending(event))

    def say(self, line: str) -> None:
        """Print what happens before the first run."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Do nothing."""

    def _say_of(self, event: RunStarted | Reported | RunNoted | RunEnded, text: str) -> None:
        start = self._study.runs[event.run].start
        name = ", ".join([start.arm, *settings_in_words([start.setting] if start.setting else [])])
        when = time.strftime("%H:%M:%S", time.localtime(event.seconds_since_epoch))
        self.say(f"{when} {event.run} {name}: {text}")


class LiveTable:
    """A table of the runs that is redrawn while they train. Runs that ended earlier are left out when the screen is
    full."""

    def __init__(self, console: Console, runs: int, by: Sequence[str]) -> None:
        """`runs`: the most that the study can have. `by`: the axes that it compares."""
        self._console, self._count = console, runs
        self._heading = axis_in_words(by[0]) if len(by) == 1 else "arm"
        self._study = StudyRecord()
        self._started = time.monotonic()
        self._line = "starting"
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def record(self, event: Event) -> None:
        """Process an event; the next redraw shows it."""
        if isinstance(event, StudyStarted):
            self._line = "starting the processes that train"
        elif isinstance(event, RunStarted):
            self._line = ""
        self._study.hear(event)

    def say(self, line: str) -> None:
        """Show what happens before the first run."""
        self._line = line

    def close(self) -> None:
        """Remove the table; the result is printed in its place."""
        self._live.stop()

    def _draw(self) -> RenderableType:
        known = list(self._study.runs.values())  # copied in one step, as another thread records
        runs = sorted(known, key=lambda run: run.start.seconds_since_epoch)
        running = [run for run in runs if run.end is None]
        ended = [run for run in runs if run.end is not None]
        room = max(0, self._console.height - len(running) - 5)
        table = _table(
            [*ended[len(ended) - min(room, len(ended)) :], *running], runs, self._heading, self._console.width
        )
        seconds = int(time.monotonic() - self._started)
        line = f"{len(ended)} of {self._count} runs ended, {len(running)} running · {seconds // 60}:{seconds % 60:02d}"
        return Group(table, Text(f"{line} · {self._line}" if self._line else line))


def _table(shown: list[RunRecord], runs: list[RunRecord], heading: str, width: int) -> Table:
    """Return a table of some of the runs, with a column of settings where the runs have several. `heading`: of the
    column of arms. If `width` is too small, the bars shrink first, and then the state."""
    has_settings = len({run.group[1] for run in runs}) > 1
    columns = {"run": [run.start.run for run in shown], heading: [run.start.arm for run in shown]}
    if has_settings:
        columns["setting"] = settings_in_words([run.start.setting for run in shown])
    spent = [_amount(run.spent) for run in shown]
    figures = {"accuracy": [_accuracy(run) for run in shown], "loss": [_loss(run) for run in shown]}
    room = width - sum(_width(header, cells) + _GAP for header, cells in (columns | figures).items())
    room -= _width("", spent) + 1 + _GAP
    bar = min(_LONGEST_BAR, max(_SHORTEST_BAR, room - _STATE_WIDTH))
    columns["progress"] = [f"{_bar(run, bar)} {amount}" for run, amount in zip(shown, spent, strict=True)]
    columns |= figures | {"state": [_shortened(_state(run), room - bar) for run in shown]}
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for header in columns:
        table.add_column(header, no_wrap=True, overflow="ellipsis")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _width(header: str, cells: list[str]) -> int:
    return max(map(len, (header, *cells)))


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= max(width, len("state")) else f"{text[: max(width, len('state')) - 1]}…"


def _bar(run: RunRecord, width: int) -> str:
    filled = round(width * min(1.0, run.spent / run.start.budget)) if run.start.budget else 0
    return "━" * filled + "·" * (width - filled)


def _accuracy(run: RunRecord) -> str:
    return "-" if run.accuracy is None else f"{run.accuracy:.2f}"


def _loss(run: RunRecord) -> str:
    return f"{run.metrics['train_loss']:.3f}" if "train_loss" in run.metrics else "-"


def _state(run: RunRecord) -> str:
    if run.end is not None:
        return _ending(run.end)
    notes = list(run.notes_of_attempt)
    of_processes = [note for note in notes if note.kind in _OF_PROCESSES][-1:]
    others = [_noted(note) for note in notes if note.kind not in _OF_PROCESSES][-1:]
    is_starting = bool(of_processes) and of_processes[0].kind == "starting"
    return ", ".join([of_processes[0].text if is_starting else "running", *others])


def _progress(run: RunRecord) -> str:
    """Return how much of its budget a run has used: `400 of 800 examples`, `1.2e+12 of 3e+13 FLOPs`."""
    return f"{_amount(run.spent)} of {_amount(run.start.budget)} {unit_in_words(run.start.unit)}"


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number < 1e9 else f"{number:.3g}"


def _noted(event: RunNoted) -> str:
    return event.text if event.kind in _OF_PROCESSES else f"{event.kind}: {event.text}"


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
