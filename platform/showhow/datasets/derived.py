"""Datasets made of others: mapped, selected, split, mixed, or with a further column.

Each is addressed by what makes it: operation, version, settings and the fingerprints of its inputs. One that is there
is not made again, and one that is made appears whole or not at all. Mapping is spread over a cluster by Ray Data, a
shard a block; the bytes are the same wherever it is done.
"""

import dataclasses
import functools
import inspect
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from showhow.datasets.claims import claimed
from showhow.datasets.dataset import Dataset, rows_of, table_of
from showhow.datasets.generate import Block, manifest_of, run_blocks, summary_of
from showhow.datasets.manifest import MANIFEST, Derivation
from showhow.datasets.whole import whole_folder
from showhow.errors import TrialError
from showhow.fingerprint import Json, fingerprint
from showhow.methods.row import Column, Row
from showhow.seeds import rng_for
from showhow.tasks.base import TextFormat

RowFunction = Callable[[Row], Iterable[Row]]
_SHARD_ROWS = 8192


def mapped(data: Dataset, home: Path, rows: RowFunction, version: int, on_cluster: bool = False) -> Dataset:
    """Return what a function makes of each row. Raises TrialError where it makes no row at all, or fails."""
    derivation = Derivation(operation="map", version=version, settings=_settings_of(rows), inputs=(data.address,))

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
    """Return the rows that a function keeps; balance: of each value of a column or field as many, the first ones.
    Raises TrialError where none is kept."""
    settings = {**_settings_of(keep), "balance": balance}
    derivation = Derivation(operation="select", version=version, settings=settings, inputs=(data.address,))

    def write(folder: Path) -> list[Block]:
        kept = [row for row in data.rows() if keep(row)]
        return _write_rows(folder, kept if balance is None else _balanced(kept, balance))

    return _made(home, derivation, data, write)


def split(data: Dataset, home: Path, parts: int, by: str | None = None, seed: int = 0) -> tuple[Dataset, ...]:
    """Return parts of sizes that differ by at most one: by a column or field, the lowest values first (of equal ones
    the first row first), or at random, by the seed. Raises TrialError for a column that some rows do not have."""
    rows: list[Row] = []

    def part(number: int) -> Dataset:
        settings: dict[str, Json] = {"parts": parts, "part": number, "by": by}
        settings |= {} if by is not None else {"seed": seed}
        derivation = Derivation(operation="split", version=1, settings=settings, inputs=(data.address,))

        def write(folder: Path) -> list[Block]:
            if not rows:
                rows.extend(_ordered(data, by, seed))
            first, last = number * len(rows) // parts, (number + 1) * len(rows) // parts
            return _write_rows(folder, rows[first:last])

        return _made(home, derivation, data, write)

    return tuple(part(number) for number in range(parts))


def mixed(parts: Mapping[str, Dataset], home: Path) -> Dataset:
    """Return the rows of all parts, one part after another, each row with the name of its part."""
    derivation = Derivation(
        operation="mix", version=1, settings={"parts": [*parts]}, inputs=tuple(part.address for part in parts.values())
    )

    def write(folder: Path) -> list[Block]:
        return _write_rows(folder, [row.with_(part=name) for name, part in parts.items() for row in part.rows()])

    return _made(home, derivation, next(iter(parts.values())), write)


def with_columns(data: Dataset, home: Path, derivation: Derivation, columns: Mapping[str, Sequence[Column]]) -> Dataset:
    """Return the rows with further columns, a value a row, in order."""

    def write(folder: Path) -> list[Block]:
        names = [*columns]
        values = zip(*columns.values(), strict=True)
        rows = zip(data.rows(), values, strict=True)
        return _write_rows(folder, [row.with_(**dict(zip(names, more, strict=True))) for row, more in rows])

    return _made(home, derivation, data, write)


def from_rows(rows: Sequence[Row], like: Dataset, home: Path, derivation: Derivation) -> Dataset:
    """Return a dataset of some rows, of the same task, split and level as another."""
    return _made(home, derivation, like, lambda folder: _write_rows(folder, rows))


def found(home: Path, derivation: Derivation) -> Dataset | None:
    """Return the dataset that a derivation makes, where it has been made."""
    folder = home / _address(derivation)
    return Dataset.open(folder) if (folder / MANIFEST).exists() else None


def _address(derivation: Derivation) -> str:
    return fingerprint(derivation.model_dump(mode="json"))


def _made(home: Path, derivation: Derivation, like: Dataset, write: Callable[[Path], list[Block]]) -> Dataset:
    address = _address(derivation)
    folder = home / address
    with claimed(folder, folder / MANIFEST) as is_ours:
        if is_ours:
            with whole_folder(folder, MANIFEST) as partial:
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
        raise TrialError(f"{_name_of(rows)} failed: {type(error).__name__}: {error}") from error
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


def _balanced(rows: Sequence[Row], column: str) -> list[Row]:
    groups: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.value(column)].append(row)
    least = min(map(len, groups.values()), default=0)
    taken: Counter[Any] = Counter()
    kept = []
    for row in rows:
        value = row.value(column)
        taken[value] += 1
        if taken[value] <= least:
            kept.append(row)
    return kept


def _ordered(data: Dataset, by: str | None, seed: int) -> list[Row]:
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


def _name_of(function: Callable[..., Any]) -> str:
    inner = function.func if isinstance(function, functools.partial) else function
    return f"{inner.__module__}.{inner.__qualname__}"


def _settings_of(function: Callable[..., Any]) -> dict[str, Json]:
    """Return what names a function: its place, the settings of the method that it belongs to, what is bound to it, by
    partial, as defaults or from around it; and of a lambda, whose place others share, what it does."""
    settings: dict[str, Json] = {"function": _name_of(function)}
    inner = function
    if isinstance(function, functools.partial):
        settings["bound"] = [*map(_json, function.args), {name: _json(one) for name, one in function.keywords.items()}]
        inner = function.func
    if inspect.ismethod(inner) and isinstance(inner.__self__, BaseModel):
        settings["method"] = inner.__self__.model_dump(mode="json")
    return settings | (_own_settings(inner) if inspect.isfunction(inner) else {})


def _own_settings(function: FunctionType) -> dict[str, Json]:
    settings: dict[str, Json] = {}
    around = inspect.getclosurevars(function).nonlocals
    if around:
        settings["around"] = {name: _json(one) for name, one in around.items()}
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    if defaults:
        settings["defaults"] = [*map(_json, defaults)]
    if function.__name__ == "<lambda>":
        settings["does"] = _code(function.__code__)
    return settings


def _code(code: CodeType) -> str:
    """Return what tells a function's code from another's, wherever it stands."""
    constants = [_code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return fingerprint([code.co_code.hex(), [*code.co_names], *constants])


def _json(value: Any) -> Json:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if inspect.isfunction(value) or inspect.ismethod(value):
        return _settings_of(value)
    raise TrialError(f"a function is bound to {value!r}; bind numbers, texts or a method, so that it can be addressed")
