"""A finished dataset on disk, read as rows. Methods call it data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from showhow.datasets.manifest import Manifest
from showhow.datasets.rows import explanation_of
from showhow.errors import UserError
from showhow.methods.row import Row
from showhow.tasks.base import TextFormat

# Columns that are fields of a row. A dataset of problems has no prompt, weight and part: the prompt is the question.
_TEXTS = ("question", "target", "answer", "prompt", "explanation", "part")
_FIELDS = (*_TEXTS, "weight")


@dataclass(frozen=True)
class Dataset:
    """A dataset's folder and its manifest. is_reused: it existed before it was requested."""

    folder: Path
    manifest: Manifest
    is_reused: bool = field(default=True, compare=False)

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Read the manifest in a folder. Raises UserError where there is no finished dataset."""
        manifest = Manifest.read(folder)
        if manifest is None:
            raise UserError(f"{folder} is not a finished dataset; run the study again to generate it")
        return cls(folder, manifest)

    @property
    def address(self) -> str:
        """The fingerprint of all that made it."""
        return self.manifest.fingerprint

    def __len__(self) -> int:
        return self.manifest.rows

    def tables(self) -> Iterator[pa.Table]:
        """Yield the shards in order."""
        for shard in self.manifest.shards:
            yield pq.read_table(self.folder / shard.name)

    def rows(self) -> Iterator[Row]:
        """Yield the rows in order."""
        for table in self.tables():
            yield from rows_of(table, self.manifest.spec.task.text_format)


def rows_of(table: pa.Table, layout: TextFormat) -> Iterator[Row]:
    """Yield the rows of a table; layout: the format of the targets of problems."""
    further = [name for name in table.column_names if name not in _FIELDS]
    for values in table.to_pylist():
        yield Row(
            question=values["question"],
            prompt=values.get("prompt", values["question"]),
            target=values["target"],
            answer=values["answer"],
            explanation=values.get("explanation") or explanation_of(values["target"], values["answer"], layout),
            weight=values.get("weight", 1.0),
            part=values.get("part") or "",
            columns={name: values[name] for name in further if values[name] is not None},
        )


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table. Raises ValueError where a column has values of several types."""
    columns: dict[str, Any] = {name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in _TEXTS}
    columns["weight"] = pa.array([row.weight for row in rows], pa.float32())
    for name in dict.fromkeys(name for row in rows for name in row.columns):
        try:
            columns[name] = pa.array([row.columns.get(name) for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(f'the column "{name}" has values of several types: {error}') from None
    return pa.table(columns)
