"""Reads a tokenised dataset: an Arrow file, memory-mapped, so that trials on one machine share one copy of the bytes.

The format (written by `datasets/tokenise.py`): record batches of some thousand rows; columns `ids` (lists of int32: the
question, the target, the end token), `prompt_tokens` (how many of them are the question's), `question` and `target`
(text), in derived datasets also `weight` (float32) and `part` (text); schema metadata `showhow`: JSON with `pad`,
`end`, `start` (token ids; start may be null), `vocabulary` (number of token ids) and `layout` (step separator and
answer prefix, as this tokenizer can spell them). The last record batch is empty; its own metadata `showhow` gives
the number of rows written, of rows dropped as too long, and of the longest's tokens.
"""

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int32, Int64
from numpy import ndarray

from showhow.errors import TrialError
from showhow.tasks.base import TextFormat

METADATA_KEY = b"showhow"


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of special tokens, and the number of ids. `start` is None for tokenizers without a start token."""

    pad: int
    end: int
    start: int | None
    vocabulary: int


class TokenFile:
    """One tokenised dataset, by row. Tokens are not copied until a batch is made of them; memory use is 16 bytes a row.

    ids: the entire file as integers, those of row r from `starts[r]` on: the question's `prompt_lengths[r]`, then the
    target's `target_lengths[r]`, the end token last."""

    ids: Int32[ndarray, " integers"]
    starts: Int64[ndarray, " rows"]
    prompt_lengths: Int32[ndarray, " rows"]
    target_lengths: Int32[ndarray, " rows"]

    def __init__(self, path: Path) -> None:
        """Map a file. Raises TrialError when it is not a tokenised dataset."""
        self.path = path
        try:
            mapped = pa.memory_map(str(path))
            self._table = pa.ipc.open_file(mapped).read_all()
            metadata = json.loads(self._table.schema.metadata[METADATA_KEY])
            self.special = SpecialTokens(**{field.name: metadata[field.name] for field in fields(SpecialTokens)})
            self.layout = TextFormat(**metadata["layout"])
            self.prompt_lengths = self._table["prompt_tokens"].to_numpy()
            self.target_lengths = pc.list_value_length(self._table["ids"]).to_numpy() - self.prompt_lengths
        except (OSError, pa.ArrowInvalid, TypeError, KeyError, ValueError) as error:
            raise TrialError(
                f"{path} is not a tokenised dataset ({error}); delete it and run the study again"
            ) from None
        mapped.seek(0)
        content = mapped.read_buffer()
        self.ids = np.frombuffer(content, dtype=np.int32, count=content.size // 4)
        chunks = [_starts(chunk, content.address) for chunk in self._table["ids"].chunks if len(chunk)]
        self.starts = np.concatenate([np.empty(0, dtype=np.int64), *chunks])

    def __len__(self) -> int:
        return len(self.starts)

    def prompt(self, row: int) -> Int32[ndarray, " prompt_tokens"]:
        """Return the token ids of a question."""
        start = self.starts[row]
        return self.ids[start : start + self.prompt_lengths[row]]

    def target(self, row: int) -> Int32[ndarray, " target_tokens"]:
        """Return the token ids of a target, the end token last."""
        start = self.starts[row] + self.prompt_lengths[row]
        return self.ids[start : start + self.target_lengths[row]]

    def windows(self, starts: Int64[ndarray, " rows"], width: int) -> Int32[ndarray, "rows width"]:
        """Return `width` integers of `ids` from each start, across ends of rows."""
        if starts.max() + width > len(self.ids):  # a short row at the end of the file, among longer ones
            windows: Int32[ndarray, "rows width"] = self.ids.take(starts[:, None] + np.arange(width), mode="clip")
        else:  # row by row, in half the time of `take`
            shape = (len(self.ids) - width + 1, width)
            windows = np.ndarray(shape, dtype=np.int32, buffer=self.ids, strides=(4, 4))[starts]
        return windows

    def texts(self, column: str, rows: int, first: int = 0) -> list[str]:
        """Return `rows` values of `question` or `target`, from row `first` on."""
        values: list[str] = self._table[column].slice(first, rows).to_pylist()
        return values

    @cached_property
    def weights(self) -> Float32[ndarray, " rows"] | None:
        """The weight of each row; None for the problems of a task, which all have 1."""
        if "weight" not in self._table.column_names:
            return None
        found: Float32[ndarray, " rows"] = self._table["weight"].to_numpy()
        return found

    @cached_property
    def part_names(self) -> tuple[str, ...]:
        """The names of the rows' parts, in file order."""
        if "part" not in self._table.column_names:
            return ()
        return tuple(dict.fromkeys(self._table["part"].to_pylist()))

    @cached_property
    def parts(self) -> Int64[ndarray, " rows"]:
        """The number of each row's part among `part_names`."""
        found: Int64[ndarray, " rows"] = pc.index_in(self._table["part"], pa.array(self.part_names)).to_numpy()
        return found


def _starts(chunk: pa.ListArray, file_address: int) -> Int64[ndarray, " rows"]:
    """Return where the lists of a chunk begin, in integers from the beginning of its file."""
    _, values = chunk.values.buffers()
    begin: int = (values.address - file_address) // 4
    offsets: Int32[ndarray, " rows_plus_1"] = chunk.offsets.to_numpy()
    return offsets[:-1].astype(np.int64) + begin
