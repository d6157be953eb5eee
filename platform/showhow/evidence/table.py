"""The table of a result, for a terminal of any width. It renders; the command line prints.

Where the terminal is narrow entire columns are omitted, the least important first, and a line below names them; a
column is never shortened. Nothing is shown by colour alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from showhow.evidence.result import ArmRow, StudyResult
from showhow.evidence.settings import axis_in_words, settings_in_words, values_in_words
from showhow.evidence.wording import ABSENT, duration, listed, param, share, varying, with_control

GAP = 2  # blanks between columns


@dataclass(frozen=True)
class Column:
    """One column as text. `header` may have two lines. Columns of high rank are omitted first; rank 0 never is."""

    header: str
    cells: tuple[str, ...]
    rank: int

    @property
    def name(self) -> str:
        """The header on one line."""
        return self.header.replace("\n", " ")

    @property
    def width(self) -> int:
        """Cells that the widest line takes."""
        return max(len(line) for text in (self.header, *self.cells) for line in text.split("\n"))


@dataclass(frozen=True)
class ResultTable:
    """A rich renderable: title, as many columns as fit, caption, notes."""

    title: str
    columns: tuple[Column, ...]
    caption: str
    notes: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | Table | Padding]:
        shown, hidden = fit(self.columns, options.max_width)
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        for column in shown:
            table.add_column(column.header, no_wrap=True, overflow="ellipsis")
        for cells in zip(*(column.cells for column in shown), strict=True):
            table.add_row(*(Text(cell) for cell in cells))
        yield Text(self.title)
        yield Text("")
        yield table
        yield Text(self.caption)
        for note in self.notes:
            yield Text(note)
        if hidden:
            yield Text(f"not shown at this width: {', '.join(column.name for column in hidden)}")


def result_table(result: StudyResult, title: str, question: str = "") -> ResultTable:
    """Return the table of a result: a row per arm and setting, a column per axis, per figure, and per param that varies
    between the rows."""
    heading = " · ".join(part for part in (title, question) if part)
    return ResultTable(heading, _columns(result), _caption(result), _notes(result))


def _columns(result: StudyResult) -> tuple[Column, ...]:
    rows = result.rows
    columns = [
        *_settings(result),
        *_arms(result),
        Column("accuracy", tuple(_accuracy(row) for row in rows), rank=0),
        Column("solved", tuple(_solved(row) for row in rows), rank=0),
        Column("steps\nright", tuple(share(row.steps_right) for row in rows), rank=4),
        Column("examples\nuntil solved", tuple(until_solved(row) for row in rows), rank=1),
        Column("tokens\nper reply", tuple(_tokens(row) for row in rows), rank=2),
        *(_spending(rows) if result.shows_spending else ()),
        Column("time\nper run", tuple(_time(row) for row in rows), rank=20),
        *_params(result),
        *_splits(rows),
        _runs(result),
    ]
    return tuple(column for column in columns if column.rank == 0 or set(column.cells) != {ABSENT})


def _settings(result: StudyResult) -> list[Column]:
    """Return a column per axis within which is compared, where there is more than one setting."""
    axes = result.settings[0] if result.has_settings else ()
    return [
        Column(axis_in_words(axis), tuple(values_in_words(axis, [row.setting[axis] for row in result.rows])), rank=0)
        for axis in axes
    ]


def _arms(result: StudyResult) -> list[Column]:
    """Return a column per axis that is compared; the last says which arms are controls."""
    columns = []
    for axis in result.by:
        values = [row.values.get(axis, row.arm if len(result.by) == 1 else None) for row in result.rows]
        cells = values_in_words(axis, values)
        if axis == result.by[-1]:
            cells = [with_control(cell, row.is_control) for cell, row in zip(cells, result.rows, strict=True)]
        columns.append(Column(axis_in_words(axis), tuple(cells), rank=0))
    return columns


def _spending(rows: Sequence[ArmRow]) -> list[Column]:
    """Return what a run spent in each of the three units, mean."""
    examples = [sum(row.examples) / len(row.examples) if row.examples else None for row in rows]
    return [
        Column("examples\nper run", tuple(_amount(value) for value in examples), rank=3),
        Column("tokens\nper run", tuple(_amount(row.tokens) for row in rows), rank=3),
        Column("FLOPs\nper run", tuple(_amount(row.flops) for row in rows), rank=3),
    ]


def fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """Return the columns that fit into `width` cells, chosen by rank, in their order, and those omitted."""
    free = width + GAP
    taken: set[int] = set()
    for place in sorted(range(len(columns)), key=lambda place: columns[place].rank):
        needed = columns[place].width + GAP
        if columns[place].rank == 0 or needed <= free:
            taken.add(place)
            free -= needed
    shown = [column for place, column in enumerate(columns) if place in taken]
    return shown, [column for place, column in enumerate(columns) if place not in taken]


def until_solved(row: ArmRow) -> str:
    """Return the least and the most examples until a run solved the task; `never` is more than any number."""
    solved = sorted(time for time in row.examples_until_solved if time is not None)
    if not row.examples_until_solved:
        return ABSENT
    if not solved:
        return "never"
    ends = [f"{solved[0]:,}", "never" if len(solved) < len(row.examples_until_solved) else f"{solved[-1]:,}"]
    return "-".join(dict.fromkeys(ends))


def _amount(value: float | None) -> str:
    """Return an amount in readable form: `16,000`, `2.41e6`, `3.1e13`."""
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if value < 1e6 else f"{value:.3g}".replace("e+0", "e").replace("e+", "e")


def _accuracy(row: ArmRow) -> str:
    if row.accuracy is None:
        return "no complete trial"
    interval = f" [{share(row.accuracy.low)}, {share(row.accuracy.high)}]" if row.accuracy.low is not None else ""
    return share(row.accuracy.mean) + interval + ("*" if row.failed_seeds else "")


def _solved(row: ArmRow) -> str:
    """Return how many runs solved the task; a run that failed did not."""
    return ABSENT if row.solved is None else f"{row.solved} of {len(row.seeds) + len(row.failed_seeds)}"


def _tokens(row: ArmRow) -> str:
    if row.tokens_per_reply is None:
        return ABSENT
    return f"{row.tokens_per_reply:,.0f}" if row.tokens_per_reply >= 9.95 else f"{row.tokens_per_reply:.2g}"


def _time(row: ArmRow) -> str:
    return ABSENT if row.seconds is None else duration(row.seconds)


def _runs(result: StudyResult) -> Column:
    """Return the column of runs; a table of graded answers does not record early stops."""
    if result.by == ("arm",):
        return Column("runs", tuple(str(row.runs) for row in result.rows), rank=19)
    return Column("runs\n(stopped early)", tuple(f"{row.runs} ({row.stopped})" for row in result.rows), rank=19)


def _params(result: StudyResult) -> list[Column]:
    """Return a column per param in which the rows' best trials differ; one that no arm has, or that belongs to what is
    compared, is not a column."""
    axes = {*result.by, *(axis for setting in result.settings for axis in setting)}
    params = [row.params for row in result.rows if row.trial is not None]
    names = [name for name in varying(params) if name not in axes and name.partition(".")[0] not in axes]
    return [
        Column(
            _two_lines(f"best {name.replace('_', ' ')}"),
            tuple(param(row.params.get(name)) for row in result.rows),
            rank=5 + place,
        )
        for place, name in enumerate(names)
    ]


def _splits(rows: Sequence[ArmRow]) -> list[Column]:
    names = sorted({name for row in rows for name in row.splits})
    return [
        Column(
            _two_lines(f"accuracy on {name.replace('_', ' ')}"),
            tuple(share(row.splits[name].mean) if name in row.splits else ABSENT for row in rows),
            rank=3,
        )
        for name in names
    ]


def _two_lines(words: str) -> str:
    """Return the words broken where the longer line is shortest."""
    places = [place for place, letter in enumerate(words) if letter == " "]
    if not places:
        return words
    middle = min(places, key=lambda place: max(place, len(words) - place - 1))
    return f"{words[:middle]}\n{words[middle + 1 :]}"


def _caption(result: StudyResult) -> str:
    guessing = f"chance {share(result.chance)}"
    if result.baseline is not None:
        guessing += f" · always the commonest answer {share(result.baseline)}"
    return f"{guessing} · solved from {result.solved_at:g} · 95% intervals over seeds and questions"


def _notes(result: StudyResult) -> tuple[str, ...]:
    """Return what is missing: failed seeds behind a figure, failed and interrupted runs; and the result's own notes."""
    notes = []
    places = settings_in_words([row.setting for row in result.rows]) if result.has_settings else []
    for index, row in enumerate(result.rows):
        name = f"{places[index]}, {row.arm}" if places else row.arm
        if row.failed_seeds:
            seeds = listed([str(seed) for seed in row.failed_seeds])
            notes.append(f"* {name}: without failed seed {seeds}; what survived may be the better part")
        if row.failed:
            reason = f" ({row.failure})" if row.failure else ""
            notes.append(f"{name}: {row.failed} of {row.runs} runs failed{reason}")
        if row.interrupted:
            has = "has" if row.interrupted == 1 else "have"
            notes.append(f"{name}: {row.interrupted} of {row.runs} runs {has} not ended")
    if any(_disagree(row) for row in result.rows):
        notes.append("solved: by test questions, at the end; examples until solved: by validation questions")
    return (*notes, *result.notes)


def _disagree(row: ArmRow) -> bool:
    """Return whether more or fewer runs solved the task by validation questions than by test questions."""
    on_the_way = sum(examples is not None for examples in row.examples_until_solved)
    return row.solved is not None and bool(row.examples_until_solved) and row.solved != on_the_way
