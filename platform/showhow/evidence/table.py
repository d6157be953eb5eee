"""The table of a result, for a terminal of any width. It renders; printing is the command line's.

Where the terminal is narrow whole columns are left out, the least important first, and a line below names them; a
column is never squeezed. Nothing is said by colour alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from showhow.evidence.result import LevelRow, StudyResult
from showhow.evidence.settings import axis_in_words, settings_in_words, values_in_words
from showhow.evidence.wording import ABSENT, duration, listed, param, share, varying

GAP = 2  # blanks between columns


@dataclass(frozen=True)
class Column:
    """One column as text. `header` may have two lines. The lower its rank, the longer it stays; rank 0 always does."""

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


def result_table(result: StudyResult, title: str, question: str) -> ResultTable:
    """Return the table of a study: a row per level, a column per figure, and per param that varies between the rows."""
    return ResultTable(f"{title} · {question}", _columns(result.rows), _caption(result), _notes(result))


def setting_table(result: StudyResult) -> ResultTable | None:
    """Return the table of the levels at each setting that the study compares (see settings.py); None where it compares
    the levels alone."""
    rows = result.by_setting
    if not rows:
        return None
    axes = [
        Column(axis_in_words(axis), tuple(values_in_words(axis, [row.setting[axis] for row in rows])), rank=0)
        for axis in rows[0].setting
    ]
    title = f"The same by {listed([column.name for column in axes])}, each level by its best trial there"
    places = settings_in_words([row.setting for row in rows])
    notes = tuple(note for row, place in zip(rows, places, strict=True) for note in _survivors(row, f"{place}, "))
    return ResultTable(title, (*axes, *_columns(rows)), "The conclusion rests on the first table alone.", notes)


def _columns(rows: Sequence[LevelRow]) -> tuple[Column, ...]:
    """Return a column per figure of the rows, and per param that varies between them and is no setting."""
    columns = [
        Column("explanation", tuple(_level(row) for row in rows), rank=0),
        Column("accuracy", tuple(_accuracy(row) for row in rows), rank=0),
        Column("solved", tuple(_solved(row) for row in rows), rank=0),
        Column("steps\nright", tuple(share(row.steps_right) for row in rows), rank=4),
        Column("examples\nuntil solved", tuple(until_solved(row) for row in rows), rank=1),
        Column("tokens\nper reply", tuple(_tokens(row) for row in rows), rank=2),
        Column("time\nper run", tuple(_time(row) for row in rows), rank=20),
        *_params(rows),
        *_splits(rows),
        Column("runs\n(stopped early)", tuple(_runs(row) for row in rows), rank=19),
    ]
    return tuple(column for column in columns if column.rank == 0 or set(column.cells) != {ABSENT})


def fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """Return the columns that fit into `width` cells, taken by rank and kept in order, and those left out."""
    free = width + GAP
    taken: set[int] = set()
    for place in sorted(range(len(columns)), key=lambda place: columns[place].rank):
        needed = columns[place].width + GAP
        if columns[place].rank == 0 or needed <= free:
            taken.add(place)
            free -= needed
    shown = [column for place, column in enumerate(columns) if place in taken]
    return shown, [column for place, column in enumerate(columns) if place not in taken]


def until_solved(row: LevelRow) -> str:
    """Return the least and the most examples until a run solved the task; `never` is more than any number."""
    solved = sorted(time for time in row.examples_until_solved if time is not None)
    if not row.examples_until_solved:
        return ABSENT
    if not solved:
        return "never"
    ends = [f"{solved[0]:,}", "never" if len(solved) < len(row.examples_until_solved) else f"{solved[-1]:,}"]
    return "-".join(dict.fromkeys(ends))


def _level(row: LevelRow) -> str:
    return f"{row.level} (control)" if row.is_control else row.level


def _accuracy(row: LevelRow) -> str:
    if row.accuracy is None:
        return "no complete trial"
    interval = f" [{share(row.accuracy.low)}, {share(row.accuracy.high)}]" if row.accuracy.low is not None else ""
    return share(row.accuracy.mean) + interval + ("*" if row.failed_seeds else "")


def _solved(row: LevelRow) -> str:
    """Return how many runs solved the task; a run that failed did not."""
    return ABSENT if row.solved is None else f"{row.solved} of {len(row.seeds) + len(row.failed_seeds)}"


def _tokens(row: LevelRow) -> str:
    if row.tokens_per_reply is None:
        return ABSENT
    return f"{row.tokens_per_reply:,.0f}" if row.tokens_per_reply >= 9.95 else f"{row.tokens_per_reply:.2g}"


def _time(row: LevelRow) -> str:
    return ABSENT if row.seconds is None else duration(row.seconds)


def _runs(row: LevelRow) -> str:
    return f"{row.runs} ({row.stopped})"


def _params(rows: Sequence[LevelRow]) -> list[Column]:
    """Return a column per param in which the rows' best trials differ; one that no level has is not a column."""
    settings = {axis for row in rows for axis in row.setting}
    params = [row.params for row in rows if row.trial is not None]
    names = [name for name in varying(params) if name not in settings]
    return [
        Column(
            _two_lines(f"best {name.replace('_', ' ')}"),
            tuple(param(row.params.get(name)) for row in rows),
            rank=5 + place,
        )
        for place, name in enumerate(names)
    ]


def _splits(rows: Sequence[LevelRow]) -> list[Column]:
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
    guessing = f"chance {share(result.chance)} · always the commonest answer {share(result.baseline)}"
    return f"{guessing} · solved from {result.solved_at:g} · 95% intervals over seeds and questions"


def _notes(result: StudyResult) -> tuple[str, ...]:
    """Return what is missing: failed seeds behind a figure, failed and interrupted runs."""
    notes = []
    for row in result.rows:
        notes += _survivors(row)
        if row.failed:
            reason = f" ({row.failure})" if row.failure else ""
            notes.append(f"{row.level}: {row.failed} of {row.runs} runs failed{reason}")
        if row.interrupted:
            notes.append(f"{row.level}: {row.interrupted} of {row.runs} runs were interrupted")
    return tuple(notes)


def _survivors(row: LevelRow, place: str = "") -> list[str]:
    if not row.failed_seeds:
        return []
    seeds = listed([str(seed) for seed in row.failed_seeds])
    return [f"* {place}{row.level}: without failed seed {seeds}; what survived may be the better part"]
