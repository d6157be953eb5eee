"""Tokens a second from Parquet shards to a tokenised file, and from that file to batches of tensors, beside Hugging
Face `datasets` with a fast tokenizer, `DataLoader`, its Trainer's grouping by length and a padding collator: the same
rows, ids and labels (asserted). And memory, each time in a process of its own.

The limits are measured. From scratch: reading the shards and writing the finished file, nothing tokenised. BPE: the
tokenizer library's `encode_batch_fast` alone. Batches: filling tensors of the same shapes with a constant.
"""

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast
from transformers.trainer_pt_utils import LengthGroupedSampler

import datasets
from benchmarks.measure import Figure, alternately, spread
from showhow.datasets.generate import generate
from showhow.datasets.manifest import Manifest
from showhow.datasets.tokenise import tokenise
from showhow.datasets.tokenizer import SpecialIds, StudyTokenizer, symbol_tokenizer
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.sections.recipe import Recipe
from showhow.tasks import task_named
from showhow.tasks.explain import Level
from showhow.training.batches import IGNORED, Batch, Source, training_batches
from showhow.training.tokens import TokenFile

TASKS: dict[str, dict[str, int]] = {"modular_sum": {"terms": 8}, "listops-30": {}}
# Whole stretches of 50 batches, so that an epoch is each row once.
ROWS = {"modular_sum": 9_600, "listops-30": 3_200}
BATCH_SIZES = {"modular_sum": (16, 64), "listops-30": (64,)}
TIMES_MORE = (10, 100)  # rows for which memory is measured, as multiples
MAX_TOKENS = 4096

Row = tuple[tuple[int, ...], tuple[int, ...]]


def figures(full: bool = False) -> list[Figure]:
    """Measure a task of short and one of long examples, at level long, on one thread; the long form takes four times
    the rows, and the BPE for long examples too."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    found = []
    with tempfile.TemporaryDirectory() as home:
        for name, changes in TASKS.items():
            task = task_named(name, changes)
            rows = ROWS[name] * (4 if full else 1)
            of = DatasetSpec(task=task, level=Level.LONG, split=TRAIN, examples=rows, seed=0, control_length=Level.LONG)
            folder = generate(of, Path(home), on_cluster=False)
            words = symbol_tokenizer([task])
            found.append(_tokenising(f"{name}, from scratch", folder, words))
            if full or name == "modular_sum":
                found.append(_tokenising(f"{name}, BPE", folder, _byte_level_bpe(folder)))
            found += [_batching(f"{name}, {size} rows", folder, words, size) for size in BATCH_SIZES[name]]
            if name == "modular_sum":
                found += [figure for times in TIMES_MORE for figure in _memory(folder, times * ROWS[name] // rows)]
    return found


def _tokenising(name: str, folder: Path, words: StudyTokenizer) -> Figure:
    wrapped = _wrapped(words)

    def ours() -> TokenFile:
        for written in folder.glob("*.arrow"):
            written.unlink()
        return TokenFile(tokenise(folder, words, MAX_TOKENS, 0.0))

    def peer() -> datasets.Dataset:
        return _mapped(folder, wrapped)

    file = ours()
    _require_equal(
        (_row([*file.prompt(row), *file.target(row)], len(file.prompt(row))) for row in range(len(file))),
        ((tuple(row["input_ids"]), tuple(row["labels"])) for row in peer()),
    )
    tokens = _tokens(file)
    taken, theirs = alternately(ours, peer)
    floor, _ = alternately(_copying(folder, file.path) if words.by_symbols else _encoding(folder, words), None)
    return _rate(f"tokenise {name}", tokens, taken, theirs, floor)


def _batching(name: str, folder: Path, words: StudyTokenizer, size: int) -> Figure:
    path = tokenise(folder, words, MAX_TOKENS, 0.0)
    dataset = _mapped(folder, _wrapped(words))
    pad, tokens = words.ids.pad, _tokens(TokenFile(path))
    lengths = list(dataset["length"])  # which Trainer reads once

    def ours() -> Iterator[Batch]:
        return _epoch(TokenFile(path), size)

    def peer() -> Iterator[Batch]:
        sampler = LengthGroupedSampler(size, lengths=lengths)
        return iter(DataLoader(dataset, size, sampler=sampler, collate_fn=lambda rows: _collated(rows, pad)))

    _require_equal(*(_rows_of(batches(), pad) for batches in (ours, peer)))
    shapes = [(batch["labels"].shape, len(batch)) for batch in ours()]
    taken, theirs = alternately(lambda: _drained(ours()), lambda: _drained(peer()))
    floor, _ = alternately(lambda: [torch.full(shape, 1) for shape, count in shapes for _ in range(count)], None)
    return _rate(f"batches {name}", tokens, taken, theirs, floor)


def _rate(name: str, tokens: int, taken: list[float], theirs: list[float], floor: list[float]) -> Figure:
    """Return the figure of what took so many seconds, each time for so many tokens."""
    peer, limit = tokens / median(theirs), tokens / median(floor)
    return Figure(name, "tokens/s", tokens / median(taken), spread(taken), peer, limit)


def _epoch(file: TokenFile, size: int) -> Iterator[Batch]:
    recipe = Recipe(batch_size=size, max_examples=len(file), learning_rate=1e-3, precision="float32")
    for step in islice(training_batches(Source(file, recipe, 0, False)), len(file) // size):
        yield from step.micro_batches


def _drained(batches: Iterator[Batch]) -> None:
    for _ in batches:
        pass


def _tokens(file: TokenFile) -> int:
    return int(file.prompt_lengths.sum() + file.target_lengths.sum())


def _wrapped(words: StudyTokenizer) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer.from_str(words.tokenizer.to_str())
    pad, end = (tokenizer.id_to_token(token) for token in (words.ids.pad, words.ids.end))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, eos_token=end)


def _mapped(folder: Path, tokenizer: PreTrainedTokenizerFast) -> datasets.Dataset:
    """Tokenise as one would with `datasets`, under a new cache."""
    end, plain = tokenizer.eos_token_id, {"return_attention_mask": False, "return_token_type_ids": False}

    def encoded(rows: dict[str, list[str]]) -> dict[str, list[Any]]:
        prompts = tokenizer(rows["question"], **plain)["input_ids"]
        targets = tokenizer(rows["target"], add_special_tokens=False, **plain)["input_ids"]
        pairs = list(zip(prompts, targets, strict=True))
        return {
            "input_ids": [[*prompt, *target, end] for prompt, target in pairs],
            "labels": [[IGNORED] * len(prompt) + [*target, end] for prompt, target in pairs],
            "length": [len(prompt) + len(target) + 1 for prompt, target in pairs],
        }

    with tempfile.TemporaryDirectory() as cache:  # an open map outlives its file's name
        dataset = datasets.Dataset.from_parquet(_shards(folder), cache_dir=cache)
        return dataset.map(encoded, batched=True, remove_columns=dataset.column_names)


def _collated(rows: list[dict[str, Any]], pad: int) -> Batch:
    """Pad as `DataCollatorForSeq2Seq` does, in three quarters of its time."""
    longest = max(row["length"] for row in rows)
    missing = [longest - row["length"] for row in rows]
    columns = {
        "input_ids": [row["input_ids"] + [pad] * count for row, count in zip(rows, missing, strict=True)],
        "labels": [row["labels"] + [IGNORED] * count for row, count in zip(rows, missing, strict=True)],
        "attention_mask": [[1] * (longest - count) + [0] * count for count in missing],
    }
    return {name: torch.tensor(values) for name, values in columns.items()}


def _copying(folder: Path, path: Path) -> Callable[[], None]:
    """Read the shards and write the finished file: all that is left when tokenising takes no time."""
    with pa.OSFile(str(path)) as file:
        batches = pa.ipc.open_file(file).read_all().to_batches()

    def copy() -> None:
        for shard in _shards(folder):
            for _ in pq.ParquetFile(shard).iter_batches(columns=["question", "target"]):
                pass
        target = str(path.with_suffix(".copy"))
        with pa.OSFile(target, "wb") as sink, pa.ipc.new_file(sink, batches[0].schema) as out:
            for batch in batches:
                out.write_batch(batch)

    return copy


def _encoding(folder: Path, words: StudyTokenizer) -> Callable[[], None]:
    table = pq.read_table(_shards(folder), columns=["question", "target"])
    questions, targets = (table[name].to_pylist() for name in ("question", "target"))

    def encode() -> None:
        words.tokenizer.encode_batch_fast(questions)
        words.tokenizer.encode_batch_fast(targets, add_special_tokens=False)

    return encode


def _byte_level_bpe(folder: Path) -> StudyTokenizer:
    """Return a tokenizer as GPT-2's, of 500 tokens learned from the dataset."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(pq.read_table(_shards(folder)[0])["target"].to_pylist()[:2000], trainer)
    return StudyTokenizer(tokenizer, SpecialIds(pad=0, end=0, start=None, unknown=None))


def _shards(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.parquet"))]


def _rows_of(batches: Iterable[Batch], pad: int) -> Iterator[Row]:
    for batch in batches:
        mask = batch.get("attention_mask", torch.ones_like(batch["labels"]))
        if not bool((batch["input_ids"][mask == 0] == pad).all() and (batch["labels"][mask == 0] == IGNORED).all()):
            raise AssertionError("padding is not what it should be")
        lengths = mask.sum(1).tolist()
        rows = zip(batch["input_ids"].tolist(), batch["labels"].tolist(), lengths, strict=True)
        yield from ((tuple(ids[:length]), tuple(labels[:length])) for ids, labels, length in rows)


def _row(ids: list[int], prompt: int) -> Row:
    return tuple(ids), (IGNORED,) * prompt + tuple(ids[prompt:])


def _require_equal(ours: Iterable[Row], peers: Iterable[Row]) -> None:
    if sorted(ours) != sorted(peers):
        raise AssertionError("ours and the peer's rows differ")


def _memory(folder: Path, times: int) -> list[Figure]:
    """Measure in a new process how much more memory so many times the rows take, tokenised and in one epoch."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows, written, read = pool.apply(_memory_taken, (folder, times))
    return [
        Figure(f"memory that grows, {what} {rows:,} rows", "MiB", taken, 0.0, is_rate=False)
        for what, taken in (("tokenise", written), ("batches of", read))
    ]


def _memory_taken(folder: Path, times: int) -> tuple[int, float, float]:
    manifest = Manifest.read(folder)
    if manifest is None:
        raise FileNotFoundError(folder)
    words = symbol_tokenizer([manifest.spec.task])
    _drained(_epoch(TokenFile(tokenise(folder, words, MAX_TOKENS, 0.0)), 64))
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        many = Path(name)
        for shard in _shards(folder):
            shutil.copy(shard, many)
        manifest.model_copy(update={"shards": manifest.shards * times}).write(many)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
        before = _resident("VmRSS")
        path = tokenise(many, words, MAX_TOKENS, 0.0)
        written = _resident("VmHWM") - before
        before = most = _resident("RssAnon")  # without the file's own pages, which the system takes back at need
        file = TokenFile(path)
        for index, _ in enumerate(_epoch(file, 64)):
            most = max(most, _resident("RssAnon")) if index % 100 == 0 else most
    return len(file), written, most - before


def _resident(kind: str) -> float:
    """Return what a line of `/proc/self/status` says, in MiB."""
    facts = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(facts[kind].split()[0]) / 1024
