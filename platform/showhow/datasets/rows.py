"""Selects, splits and mixes rows in memory. Pure: other modules read and write files."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from showhow.errors import TrialError
from showhow.methods.row import Row
from showhow.seeds import rng_for
from showhow.tasks.base import TextFormat


class Rows(Protocol):
    """Data whose rows can be read."""

    @property
    def address(self) -> str:
        """The fingerprint of the data."""

    def rows(self) -> Iterator[Row]:
        """Yield them in order."""


def explanation_of(target: str, answer: str, layout: TextFormat) -> str:
    """Return the text before the answer in a problem's target."""
    ending = layout.answer_prefix + answer
    return target.removesuffix(ending).removesuffix(layout.step_separator) if target.endswith(ending) else ""


def balanced(rows: Sequence[Row], column: str) -> list[Row]:
    """Return the same number of rows for each value of a column or field, the first ones."""
    groups: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.value(column)].append(row)
    least = min(map(len, groups.values()), default=0)
    taken: Counter[Any] = Counter()
    chosen = []
    for row in rows:
        value = row.value(column)
        taken[value] += 1
        if taken[value] <= least:
            chosen.append(row)
    return chosen


def ordered(data: Rows, by: str | None, seed: int) -> list[Row]:
    """Return rows in the order for splitting: by a column or field, lowest values first (equal ones in row order), or
    at random, by the seed. Raises TrialError for a column that some rows do not have."""
    rows = [*data.rows()]
    if by is None:
        rng_for("split", data.address, seed).shuffle(rows)
        return rows
    missing = next((row for row in rows if row.value(by) is None), None)
    if missing is not None:
        there = ", ".join(sorted({name for row in rows[:100] for name in row.columns}))
        raise TrialError(
            f'split by "{by}": the row "{missing.question}" has no such column; columns: {there or "none"}'
        )
    return sorted(rows, key=lambda row: row.value(by))  # type: ignore[arg-type,return-value]


def part_of(rows: Sequence[Row], number: int, parts: int) -> Sequence[Row]:
    """Return one of several parts of rows whose sizes differ by at most one."""
    return rows[number * len(rows) // parts : (number + 1) * len(rows) // parts]


def mixture(parts: Mapping[str, Rows]) -> Iterator[Row]:
    """Yield the rows of all parts, one part after another, each row with the name of its part."""
    return (row.with_(part=name) for name, part in parts.items() for row in part.rows())
