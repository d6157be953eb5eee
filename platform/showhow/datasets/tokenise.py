"""Tokenises a dataset once per tokenizer, into an Arrow file that trials read by memory map (format:
`training/tokens.py`)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int32, Int64
from numpy import ndarray

from showhow.datasets.manifest import Manifest
from showhow.datasets.tokenizer import StudyTokenizer
from showhow.datasets.whole import whole_file
from showhow.errors import UserError
from showhow.study.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks.explain import FILLER_SYMBOL, Level

_ROWS_AT_ONCE = 8192
_METADATA_KEY = b"showhow"


@dataclass(frozen=True)
class Lengths:
    """What became of a dataset's rows: how many were kept, how many dropped as too long, and the longest one's
    tokens."""

    kept: int
    dropped: int
    longest: int


@dataclass(frozen=True)
class _Rows:
    """Token ids of some texts, one after another, and how many belong to each."""

    ids: Int32[ndarray, " tokens"]
    lengths: Int64[ndarray, " rows"]


def tokenise(folder: Path, words: StudyTokenizer, max_tokens: int, max_dropped_share: float) -> Path:
    """Return the Arrow file of a dataset under a tokenizer, writing it unless it is there.

    Rows longer than max_tokens are dropped whole: an answer is never cut off. Raises UserError when more than
    max_dropped_share of the training rows are too long, or any row of an evaluation split (all levels must be asked
    the same questions), or when the tokenizer does not know a symbol."""
    path = folder / f"tokens-{words.fingerprint}-{max_tokens}.arrow"
    manifest = Manifest.read(folder)
    if manifest is None:
        raise UserError(f"{folder} is not a finished dataset; run the study again to generate it")
    lengths = read_lengths(path) or _write(path, words, manifest, max_tokens)
    _check_dropped(lengths, manifest.spec, max_tokens, max_dropped_share)
    return path


def read_lengths(path: Path) -> Lengths | None:
    """Return what became of the rows of a tokenised dataset, or None where there is no readable file."""
    try:
        with pa.memory_map(str(path)) as file:
            metadata = pa.ipc.open_file(file).schema.metadata[_METADATA_KEY]
        return Lengths(**json.loads(metadata)["lengths"])
    except (OSError, pa.ArrowInvalid, TypeError, KeyError, ValueError):
        return None


def _check_dropped(lengths: Lengths, spec: DatasetSpec, max_tokens: int, max_dropped_share: float) -> None:
    if not lengths.dropped:
        return
    share = lengths.dropped / (lengths.kept + lengths.dropped)
    found = (
        f"{lengths.dropped:,} ({share:.1%}) of the {spec.split} rows at level {spec.level} are longer than "
        f"data.max_tokens = {max_tokens} (the longest has {lengths.longest})"
    )
    if spec.split != TRAIN:
        raise UserError(f"{found}; raise it: questions of an evaluation are not dropped, so that all levels share them")
    if share > max_dropped_share or not lengths.kept:
        raise UserError(
            f"{found}, and data.max_dropped_share = {max_dropped_share:g}; raise max_tokens, or allow a larger share "
            "to be dropped"
        )


def _write(path: Path, words: StudyTokenizer, manifest: Manifest, max_tokens: int) -> Lengths:
    own = manifest.spec.task.text_format
    layout = words.layout(own)
    table = pa.concat_tables(pq.read_table(path.parent / shard.name) for shard in manifest.shards)
    for column in ("target", "matched"):  # no step contains a separator, so this changes nothing else
        respelt = pc.replace_substring(table[column], own.step_separator, layout.step_separator)
        table = table.set_column(table.column_names.index(column), column, respelt)
    prompts = _encode(words, table["question"], path.parent, as_prompts=True)
    targets = _ended(_target_rows(words, table, manifest.spec, path.parent), words.ids.end)
    lengths = prompts.lengths + targets.lengths
    fits = lengths <= max_tokens
    kept = int(fits.sum())
    result = Lengths(kept, len(fits) - kept, int(lengths.max()))
    columns = {"prompt_ids": _lists(prompts), "target_ids": _lists(targets)}
    tokenised = pa.table(columns | {name: table[name] for name in ("question", "target")})
    metadata = {
        "pad": words.ids.pad,
        "end": words.ids.end,
        "start": words.ids.start,
        "vocabulary": words.tokenizer.get_vocab_size(with_added_tokens=True),
        "layout": asdict(layout),
        "lengths": asdict(result),
    }
    _store(path, tokenised if kept == len(fits) else tokenised.filter(pa.array(fits)), metadata)
    return result


def _target_rows(words: StudyTokenizer, table: pa.Table, spec: DatasetSpec, folder: Path) -> _Rows:
    if spec.level is not Level.FILLER:
        return _encode(words, table["target"], folder)
    prefix = spec.task.text_format.answer_prefix
    endings = _encode(words, [prefix + answer for answer in table["answer"].to_pylist()], folder)
    matched = _encode(words, table["matched"], folder)
    dots = np.maximum(matched.lengths - endings.lengths, 0)
    lengths = dots + endings.lengths
    starts = np.cumsum(lengths) - lengths
    is_ending = np.arange(lengths.sum()) - np.repeat(starts, lengths) >= np.repeat(dots, lengths)
    ids = np.full(len(is_ending), words.encode([FILLER_SYMBOL])[0][-1], dtype=np.int32)
    ids[is_ending] = endings.ids
    return _Rows(ids, lengths)


def _encode(
    words: StudyTokenizer, texts: pa.ChunkedArray | Sequence[str], folder: Path, as_prompts: bool = False
) -> _Rows:
    strings: list[str] = texts.to_pylist() if isinstance(texts, pa.ChunkedArray) else list(texts)
    ids, lengths = [], []
    for start in range(0, len(strings), _ROWS_AT_ONCE):
        found = words.encode(strings[start : start + _ROWS_AT_ONCE], as_prompts)
        lengths.append(np.fromiter(map(len, found), dtype=np.int64, count=len(found)))
        ids.append(np.fromiter(chain.from_iterable(found), dtype=np.int32, count=int(lengths[-1].sum())))
    rows = _Rows(np.concatenate(ids), np.concatenate(lengths))
    faults = np.flatnonzero(rows.ids == words.ids.unknown) if words.ids.unknown is not None else rows.ids[:0]
    if faults.size:
        text = strings[int((np.cumsum(rows.lengths) <= faults[0]).sum())]
        raise UserError(f"{folder}: the tokenizer does not know a symbol of {text!r}, so no model could read it")
    return rows


def _ended(rows: _Rows, end: int) -> _Rows:
    return _Rows(np.insert(rows.ids, np.cumsum(rows.lengths), end), rows.lengths + 1)


def _lists(rows: _Rows) -> pa.LargeListArray:
    offsets = np.concatenate([[0], np.cumsum(rows.lengths)])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(rows.ids, pa.int32()))


def _store(path: Path, table: pa.Table, metadata: dict[str, Any]) -> None:
    table = table.combine_chunks().replace_schema_metadata({_METADATA_KEY: json.dumps(metadata).encode()})
    with whole_file(path) as partial, pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
