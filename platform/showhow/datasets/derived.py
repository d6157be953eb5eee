"""Datasets derived from others: mapped, selected, split, mixed, or with additional columns.

Each is addressed by what makes it: operation, version, settings and the fingerprints of its inputs. An existing one is
not made again, and a new one appears complete or not at all. Ray Data spreads mapping over a cluster, a shard per
block; the bytes are the same wherever it runs.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from showhow.datasets.addresses import address_of, name_of, settings_of
from showhow.datasets.atomic import atomic_folder
from showhow.datasets.claims import claimed
from showhow.datasets.dataset import Dataset, rows_of, table_of
from showhow.datasets.generate import Block, manifest_of, run_blocks, summary_of
from showhow.datasets.manifest import MANIFEST, Derivation
from showhow.datasets.rows import balanced, mixture, ordered, part_of
from showhow.errors import TrialError
from showhow.fingerprint import Json
from showhow.methods.row import Column, Row
from showhow.tasks.base import TextFormat

RowFunction = Callable[[Row], Iterable[Row]]
_SHARD_ROWS = 8192


def mapped(data: Dataset, home: Path, rows: RowFunction, version: int, on_cluster: bool = False) -> Dataset:
    """Return the rows that a function makes of each row. Raises TrialError where it makes none, or fails."""
    derivation = Derivation(operation="map", version=version, settings=settings_of(rows), inputs=(data.address,))

    def write(folder: Path) -> list[Block]:
        blocks: list[Block] = [
            {"block": number, "path": str(data.folder / shard.name)}
            for number, shard in enumerate(data.manifest.shards)
        ]
        layout = data.manifest.spec.task.text_format
        return run_blocks(functools.partial(_map_shard, rows, layout, str(folder)), blocks, on_cluster)

    return _made(home, derivation, data, write)


def selected(
    data: Dataset, home: Path, keep: Callable[[Row], bool], version: int, balance: str | None = None
) -> Dataset:
    """Return the rows for which a function is true; balance: take the same number for each value of a column or field,
    the first ones. Raises TrialError where there are none."""
    settings = {**settings_of(keep), "balance": balance}
    derivation = Derivation(operation="select", version=version, settings=settings, inputs=(data.address,))

    def write(folder: Path) -> list[Block]:
        rows = [row for row in data.rows() if keep(row)]
        return _write_rows(folder, rows if balance is None else balanced(rows, balance))

    return _made(home, derivation, data, write)


def split(data: Dataset, home: Path, parts: int, by: str | None = None, seed: int = 0) -> tuple[Dataset, ...]:
    """Return parts of sizes that differ by at most one: by a column or field, lowest values first (equal ones in
    row order), or at random, by the seed. Raises TrialError for a column that some rows do not have."""
    rows: list[Row] = []

    def part(number: int) -> Dataset:
        settings: dict[str, Json] = {"parts": parts, "part": number, "by": by}
        settings |= {} if by is not None else {"seed": seed}
        derivation = Derivation(operation="split", version=1, settings=settings, inputs=(data.address,))

        def write(folder: Path) -> list[Block]:
            if not rows:
                rows.extend(ordered(data, by, seed))
            return _write_rows(folder, part_of(rows, number, parts))

        return _made(home, derivation, data, write)

    return tuple(part(number) for number in range(parts))


def mixed(parts: Mapping[str, Dataset], home: Path) -> Dataset:
    """Return the rows of all parts, one part after another, each row with the name of its part."""
    derivation = Derivation(
        operation="mix", version=1, settings={"parts": [*parts]}, inputs=tuple(part.address for part in parts.values())
    )

    def write(folder: Path) -> list[Block]:
        return _write_rows(folder, [*mixture(parts)])

    return _made(home, derivation, next(iter(parts.values())), write)


def with_columns(data: Dataset, home: Path, derivation: Derivation, columns: Mapping[str, Sequence[Column]]) -> Dataset:
    """Return the rows with additional columns, with a value per row, in order."""

    def write(folder: Path) -> list[Block]:
        names = [*columns]
        values = zip(*columns.values(), strict=True)
        rows = zip(data.rows(), values, strict=True)
        return _write_rows(folder, [row.with_(**dict(zip(names, more, strict=True))) for row, more in rows])

    return _made(home, derivation, data, write)


def from_rows(rows: Sequence[Row], like: Dataset, home: Path, derivation: Derivation) -> Dataset:
    """Return a dataset of some rows, with the task, split and level of another."""
    return _made(home, derivation, like, lambda folder: _write_rows(folder, rows))


def found(home: Path, derivation: Derivation) -> Dataset | None:
    """Return the dataset that a derivation makes, where it has been made."""
    folder = home / address_of(derivation)
    return Dataset.open(folder) if (folder / MANIFEST).exists() else None


def _made(home: Path, derivation: Derivation, like: Dataset, write: Callable[[Path], list[Block]]) -> Dataset:
    address = address_of(derivation)
    folder = home / address
    with claimed(folder, folder / MANIFEST) as is_ours:
        if is_ours:
            with atomic_folder(folder, MANIFEST) as partial:
                written = [block for block in write(partial) if block["rows"]]
                if not written:
                    what = derivation.settings.get("function", ", ".join(derivation.inputs))
                    raise TrialError(f"the stage {derivation.operation} ({what}) leaves no row")
                manifest_of(like.manifest.spec, written, address, derivation).write(partial)
    return dataclasses.replace(Dataset.open(folder), is_reused=not is_ours)


def _map_shard(rows: RowFunction, layout: TextFormat, folder: str, block: Block) -> Block:
    table = pq.read_table(block["path"])
    try:
        made = [new for row in rows_of(table, layout) for new in rows(row)]
    except Exception as error:
        raise TrialError(f"{name_of(rows)} failed: {type(error).__name__}: {error}") from error
    return _write_table(Path(folder), int(block["block"]), table_of(made))


def _write_rows(folder: Path, rows: Sequence[Row]) -> list[Block]:
    table = table_of(rows)
    return [
        _write_table(folder, number, table.slice(number * _SHARD_ROWS, _SHARD_ROWS))
        for number in range(math.ceil(len(rows) / _SHARD_ROWS))
    ]


def _write_table(folder: Path, number: int, table: pa.Table) -> Block:
    if not table.num_rows:
        return {"block": number, "rows": 0}
    path = folder / f"shard-{number:05d}.parquet"
    pq.write_table(table, path, compression="zstd")
    return summary_of(table, path, number)
