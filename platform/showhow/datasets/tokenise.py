"""Tokenises a dataset once per tokenizer, into an Arrow file that trials read by memory map (format:
`training/tokens.py`). Rows are read and written in batches, so memory does not grow with the dataset."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int64
from numpy import ndarray

from showhow.datasets.atomic import atomic_file
from showhow.datasets.manifest import Derivation, Manifest
from showhow.datasets.tokenizer import StudyTokenizer, TokenRows
from showhow.errors import UserError
from showhow.methods.row import MATCHED
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks.base import TextFormat
from showhow.tasks.explain import FILLER_SYMBOL, Level

_FORMAT = 2  # increase it when older files could be misread
_ROWS_AT_ONCE = 4096
_METADATA_KEY = b"showhow"
_SCHEMA = pa.schema(
    [("ids", pa.list_(pa.int32())), ("prompt_tokens", pa.int32()), ("question", pa.string()), ("target", pa.string())]
)
_DERIVED_FIELDS = (pa.field("weight", pa.float32()), pa.field("part", pa.string()))


@dataclass(frozen=True)
class Lengths:
    """How many rows of a dataset were written, how many were dropped as too long, and the tokens of the longest."""

    kept: int
    dropped: int
    longest: int


def tokenise(
    folder: Path, words: StudyTokenizer, max_tokens: int, max_dropped_share: float, room: int | None = None
) -> Path:
    """Return the Arrow file of a dataset under a tokenizer, and write it if it does not exist. room: the largest
    max_tokens of the model (None: no limit).

    Rows longer than max_tokens are dropped completely: an answer is never cut off. Raises UserError when more than
    max_dropped_share of the training rows are too long, when any row of an evaluation split is (all levels must get the
    same questions), or when the tokenizer does not know a symbol."""
    path = folder / f"tokens{_FORMAT}-{words.fingerprint}-{max_tokens}.arrow"
    manifest = Manifest.read(folder)
    if manifest is None:
        raise UserError(f"{folder} is not a finished dataset; run the study again to generate it")
    lengths = read_lengths(path) or _write(path, words, manifest, max_tokens)
    _check_dropped(lengths, manifest.spec, max_tokens, max_dropped_share, room)
    return path


def read_lengths(path: Path) -> Lengths | None:
    """Return the Lengths of a tokenised dataset, or None where there is no readable file."""
    try:
        with pa.memory_map(str(path)) as mapped:
            file = pa.ipc.open_file(mapped)
            _, metadata = file.get_batch_with_custom_metadata(file.num_record_batches - 1)
            return Lengths(**json.loads(metadata[_METADATA_KEY]))
    except (OSError, pa.ArrowInvalid, TypeError, KeyError, ValueError):
        return None


def _check_dropped(
    lengths: Lengths, spec: DatasetSpec, max_tokens: int, max_dropped_share: float, room: int | None
) -> None:
    if not lengths.dropped:
        return
    share = lengths.dropped / (lengths.kept + lengths.dropped)
    found = (
        f"{lengths.dropped:,} ({share:.1%}) of the {spec.split} rows at level {spec.level} are longer than "
        f"data.max_tokens = {max_tokens} (the longest has {lengths.longest})"
    )
    do = f"raise it to {lengths.longest}"
    if room is not None and lengths.longest > room:
        do = (
            f"the model has positions for {room}, so raising it would not help: make the task's questions or the "
            "explanations shorter, or use a model with more positions"
        )
    if spec.split != TRAIN:
        raise UserError(f"{found}; {do}. Evaluation questions are never dropped, so that all levels share them")
    if share > max_dropped_share or not lengths.kept:
        raise UserError(
            f"{found}, and data.max_dropped_share = {max_dropped_share:g}; {do}, or allow a larger share to be dropped"
        )


def _write(path: Path, words: StudyTokenizer, manifest: Manifest, max_tokens: int) -> Lengths:
    source = _Source(
        words, manifest.spec, words.layout(manifest.spec.task.text_format), path.parent, manifest.derivation
    )
    facts = {
        "pad": words.ids.pad,
        "end": words.ids.end,
        "start": words.ids.start,
        "vocabulary": words.vocabulary,
        "layout": asdict(source.layout),
    }
    schema = source.schema.with_metadata({_METADATA_KEY: json.dumps(facts)})
    written = dropped = longest = 0
    with atomic_file(path) as partial, pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
        for shard in manifest.shards:
            for texts in pq.ParquetFile(path.parent / shard.name).iter_batches(_ROWS_AT_ONCE):
                rows = source.tokenised(texts)
                lengths = rows["ids"].value_lengths().to_numpy()
                fits = lengths <= max_tokens
                out.write_batch(rows if fits.all() else rows.filter(pa.array(fits)))
                written += int(fits.sum())
                dropped += int((~fits).sum())
                longest = max(longest, int(lengths.max()))
        result = Lengths(written, dropped, longest)
        nothing = pa.RecordBatch.from_pylist([], source.schema)
        out.write_batch(nothing, custom_metadata={_METADATA_KEY: json.dumps(asdict(result))})
    return result


@dataclass(frozen=True)
class _Source:
    """A dataset, and how its texts are tokenised. layout: its text format, in symbols of this tokenizer."""

    words: StudyTokenizer
    spec: DatasetSpec
    layout: TextFormat
    folder: Path
    derivation: Derivation | None

    def tokenised(self, texts: pa.RecordBatch) -> pa.RecordBatch:
        """Return some rows in the format of the file."""
        names = texts.schema.names
        prompts = self._encode(texts["prompt" if "prompt" in names else "question"], as_prompts=True)
        is_filler = self.spec.level is Level.FILLER and MATCHED in names and not texts[MATCHED].null_count
        targets = self._fillers(texts) if is_filler else self._encode(self._formatted(texts["target"]))
        ends = _repeated(self.words.ids.end, np.ones(len(texts), dtype=np.int64))
        rows = _concatenated(prompts, targets, ends)
        offsets = np.concatenate([[0], np.cumsum(rows.lengths)])
        return pa.record_batch(
            {
                "ids": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(rows.ids)),
                "prompt_tokens": pa.array(prompts.lengths, pa.int32()),
                "question": texts["question"],
                "target": self._formatted(texts["target"]),
                **{name: texts[name] for name in self.schema.names if name in ("weight", "part")},
            },
            self.schema,
        )

    @property
    def schema(self) -> pa.Schema:
        """The columns of the file; those of a derived dataset include a weight and a part."""
        return _SCHEMA if self.derivation is None else pa.schema([*_SCHEMA, *_DERIVED_FIELDS])

    def _formatted(self, texts: pa.StringArray) -> pa.StringArray:
        # No step contains a separator, so this changes only separators.
        own, new = self.spec.task.text_format.step_separator, self.layout.step_separator
        return texts if own == new else pc.replace_substring(texts, own, new)

    def _fillers(self, texts: pa.RecordBatch) -> TokenRows:
        endings = self._encode(pc.binary_join_element_wise(self.layout.answer_prefix, texts["answer"], ""))
        matched = self._encode(self._formatted(texts["matched"]))
        dot = int(self.words.encode(pa.array([FILLER_SYMBOL])).ids[-1])
        return _concatenated(_repeated(dot, np.maximum(matched.lengths - endings.lengths, 0)), endings)

    def _encode(self, texts: pa.StringArray, as_prompts: bool = False) -> TokenRows:
        rows, unknown = self.words.encode(texts, as_prompts), self.words.ids.unknown
        faults = np.flatnonzero(rows.ids == unknown) if unknown is not None else rows.ids[:0]
        if faults.size:
            text = texts[int((np.cumsum(rows.lengths) <= faults[0]).sum())].as_py()
            raise UserError(
                f"{self.folder}: the tokenizer does not know a symbol of {text!r}, so no model could read it"
            )
        return rows


def _repeated(token: int, lengths: Int64[ndarray, " rows"]) -> TokenRows:
    return TokenRows(np.full(lengths.sum(), token, dtype=np.int32), lengths)


def _concatenated(*parts: TokenRows) -> TokenRows:
    """Return rows that concatenate one row of each part."""
    lengths = np.stack([part.lengths for part in parts], axis=1)
    owners = np.repeat(np.tile(np.arange(len(parts), dtype=np.uint8), len(lengths)), lengths.ravel())
    ids = np.empty(len(owners), dtype=np.int32)
    for owner, part in enumerate(parts):
        ids[owners == owner] = part.ids
    return TokenRows(ids, lengths.sum(axis=1))
