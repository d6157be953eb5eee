"""Reads a tokenised dataset: an Arrow file, memory-mapped, so that trials on one machine share one copy of the bytes.

The format (written by `datasets/tokenise.py`): one record batch; columns `prompt_ids` and `target_ids` (large lists of
int32; a target ends with the end token), `question` and `target` (text); schema metadata `showhow`: JSON with `pad`,
`end`, `start` (token ids; start may be null), `vocabulary` (number of token ids), `layout` (step separator and answer
prefix, as this tokenizer can spell them) and `lengths` (how many rows were kept, how many dropped as too long).
"""

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int32, Int64
from numpy import ndarray

from showhow.errors import TrialError
from showhow.tasks.base import TextFormat

METADATA_KEY = b"showhow"


@dataclass(frozen=True)
class SpecialTokens:
    """Ids with a meaning, and the number of ids there are. `start` is None for tokenizers without a start token."""

    pad: int
    end: int
    start: int | None
    vocabulary: int


class TokenFile:
    """One tokenised dataset, by row. Nothing is copied until a batch is made of it."""

    def __init__(self, path: Path) -> None:
        """Map a file. Raises TrialError when it is not a tokenised dataset."""
        self.path = path
        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            metadata = json.loads(self._table.schema.metadata[METADATA_KEY])
            self.special = SpecialTokens(**{field.name: metadata[field.name] for field in fields(SpecialTokens)})
            self.layout = TextFormat(**metadata["layout"])
        except (OSError, pa.ArrowInvalid, TypeError, KeyError, ValueError) as error:
            raise TrialError(
                f"{path} is not a tokenised dataset ({error}); delete it and run the study again"
            ) from None
        self._prompts = _ragged(self._table["prompt_ids"])
        self._targets = _ragged(self._table["target_ids"])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def prompt(self, row: int) -> Int32[ndarray, " prompt_tokens"]:
        """Return the token ids of a question."""
        values, offsets = self._prompts
        return values[offsets[row] : offsets[row + 1]]

    def target(self, row: int) -> Int32[ndarray, " target_tokens"]:
        """Return the token ids of a target, the end token last."""
        values, offsets = self._targets
        return values[offsets[row] : offsets[row + 1]]

    @cached_property
    def prompt_lengths(self) -> Int64[ndarray, " rows"]:
        """Tokens in each question."""
        return np.diff(self._prompts[1])

    @cached_property
    def target_lengths(self) -> Int64[ndarray, " rows"]:
        """Tokens in each target, the end token counted."""
        return np.diff(self._targets[1])

    def texts(self, column: str, rows: int) -> list[str]:
        """Return the first `rows` values of `question` or `target`."""
        values: list[str] = self._table[column].slice(0, rows).to_pylist()
        return values


def _ragged(column: pa.ChunkedArray) -> tuple[Int32[ndarray, " tokens"], Int64[ndarray, " rows_plus_1"]]:
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # several only in files of others
    return array.values.to_numpy(zero_copy_only=True), array.offsets.to_numpy(zero_copy_only=True)
