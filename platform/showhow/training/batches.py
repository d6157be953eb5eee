"""Turns tokenised rows into batches: selects, orders, pads or packs them. The order is a function of the seed.

A batch is a dict of tensors as the Hugging Face models take them; `labels` are -100 where no loss is computed: on the
question (the loss is on the response only) and on padding. Two more tensors are for the loss only (losses.py):
`weights` of the labels, where they are not all 1; `shares` of the first row of each pair, where rows are mixed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from numpy import ndarray

from showhow.errors import TrialError
from showhow.methods.losses import CrossEntropy, Loss, Mixup
from showhow.sections.recipe import Recipe
from showhow.seeds import seed_for
from showhow.training.ranks import rank, world_size
from showhow.training.tokens import TokenFile
from showhow.training.weights import TokenWeights

IGNORED = -100
Batch = dict[str, torch.Tensor]
Rows = Int64[ndarray, " batch"]

# Rows are sorted by length within a stretch of this many batches: long enough to waste little padding, short enough
# that the order stays random.
_GROUPED_BATCHES = 50
_PACKED_ROW_TOKENS = 256


def row_order(lengths: Int[ndarray, " rows"], batch_size: int, seed: int) -> Iterator[Rows]:
    """Yield the rows of each batch, endlessly: each pass over the dataset is a new permutation, and batches contain
    rows of similar length."""
    stretch = min(_GROUPED_BATCHES, max(1, len(lengths) // batch_size)) * batch_size
    waiting = np.empty(0, dtype=np.int64)
    epoch = 0
    while True:
        while len(waiting) < stretch:
            rng = np.random.default_rng(seed_for("order", seed, epoch))
            waiting = np.concatenate([waiting, rng.permutation(len(lengths))])
            epoch += 1
        rows, waiting = waiting[:stretch], waiting[stretch:]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches = rows.reshape(-1, batch_size)
        yield from batches[
            np.random.default_rng(seed_for("batches", seed, epoch, len(waiting))).permutation(len(batches))
        ]


@dataclass(frozen=True)
class StepBatch:
    """The data of one optimizer step: this process's micro-batches; and for the batch over all processes the number of
    tokens without padding, of target tokens (weighted, where they have weights), and of mixed pairs of target
    tokens."""

    micro_batches: list[Batch]
    tokens: int
    targets: float
    mixed: int = 0


@dataclass(frozen=True)
class Source:
    """The source of batches. weights: of the target tokens (None: all 1); loss: what they are for."""

    file: TokenFile
    recipe: Recipe
    seed: int
    is_seq2seq: bool
    loss: Loss = CrossEntropy()  # noqa: RUF009 - frozen
    weights: TokenWeights | None = None

    def order(self) -> Iterator[Rows]:
        """Yield the rows of each batch, endlessly. Raises TrialError where rows cannot be paired."""
        if isinstance(self.loss, Mixup):
            return paired_order(self.file, self.recipe.batch_size, self.seed)
        return row_order(self.lengths, self.recipe.batch_size, self.seed)

    @property
    def lengths(self) -> Int[ndarray, " rows"]:
        """Tokens of each row."""
        lengths: Int[ndarray, " rows"] = self.file.prompt_lengths + self.file.target_lengths
        return lengths


def training_batches(source: Source, micro_batch_size: int | None = None, first_step: int = 0) -> Iterator[StepBatch]:
    """Yield the batch of each optimizer step from `first_step` on, endlessly. The processes of a run divide each batch
    among them, without splitting pairs. micro_batch_size: replaces the recipe's.

    Raises TrialError when the model cannot take packed rows, or rows cannot be paired."""
    recipe, file, weights = source.recipe, source.file, source.weights
    if recipe.batching == "packed" and source.is_seq2seq:
        raise TrialError('batching = "packed" is for causal models only; use "grouped" for models with an encoder')
    collate = packed_batch if recipe.batching == "packed" else seq2seq_batch if source.is_seq2seq else causal_batch
    micro = micro_batch_size or recipe.micro_batch_size or recipe.batch_size
    lengths, lot = source.lengths, 2 if isinstance(source.loss, Mixup) else 1
    for step, rows in enumerate(islice(source.order(), first_step, None), first_step):
        own = rows.reshape(-1, lot)[rank() :: world_size()]
        # Equally many in every process; pairs stay together.
        parts = np.array_split(own, -(-(recipe.batch_size // lot) // (max(micro // lot, 1) * world_size())))
        targets = int(file.target_lengths[rows].sum()) if weights is None else weights.total(file, rows)
        batches = [collate(file, part.ravel(), weights) for part in parts]
        mixed = 0
        if isinstance(source.loss, Mixup):
            mixed = int(file.target_lengths[rows].reshape(-1, 2).min(axis=1).sum())
            _add_shares(batches, own, source.loss, (source.seed, step))
        yield StepBatch(batches, int(lengths[rows].sum()), targets, mixed)


def paired_order(file: TokenFile, batch_size: int, seed: int) -> Iterator[Rows]:
    """Yield batches endlessly: rows 0, 2, ... are from the first part of a mix and rows 1, 3, ... from the second,
    paired at random; a batch contains pairs of similar length. Each pass over a part is a new permutation.

    Raises TrialError unless the file has two parts and batches divide into pairs over the devices."""
    if batch_size % 2:
        raise TrialError(f"recipe.batch_size = {batch_size} is odd, but half of each batch is from each part")
    if batch_size % (2 * world_size()):
        multiple = f"let it be a multiple of {2 * world_size()}"
        raise TrialError(
            f"recipe.batch_size = {batch_size} cannot be divided in pairs over {world_size()} devices; {multiple}"
        )
    names = file.part_names
    if len(names) != 2:
        raise TrialError(f"pairs need two parts of a mix; these rows have {len(names)} ({', '.join(names) or 'none'})")
    streams = [_part_order(np.flatnonzero(file.parts == number), seed, number) for number in (0, 1)]
    lengths, pairs = file.prompt_lengths + file.target_lengths, batch_size // 2
    stretch = min(_GROUPED_BATCHES, max(1, len(lengths) // batch_size)) * pairs
    for number in count():
        rows = np.stack([np.fromiter(islice(stream, stretch), np.int64, stretch) for stream in streams], axis=1)
        rows = rows[np.argsort(lengths[rows].sum(axis=1), kind="stable")].reshape(-1, batch_size)
        yield from rows[np.random.default_rng(seed_for("paired batches", seed, number)).permutation(len(rows))]


def _part_order(rows: Rows, seed: int, part: int) -> Iterator[int]:
    for epoch in count():
        yield from np.random.default_rng(seed_for("paired", seed, part, epoch)).permutation(rows)


def _add_shares(batches: list[Batch], pairs: Int64[ndarray, "pairs two"], loss: Mixup, key: tuple[int, int]) -> None:
    """Draw for each pair the share of its first row: a function of seed, step and the pair's rows only."""
    shares = [
        np.random.default_rng(seed_for("mixup", *key, *map(int, pair))).beta(loss.alpha, loss.alpha) for pair in pairs
    ]
    drawn = torch.tensor(shares, dtype=torch.float32)
    for batch, part in zip(batches, torch.split(drawn, [len(one["labels"]) // 2 for one in batches]), strict=True):
        batch["shares"] = part


def causal_batch(file: TokenFile, rows: Rows, weights: TokenWeights | None = None) -> Batch:
    """Return question and target in one row, padded on the right: `input_ids`, `labels`, and `attention_mask` where
    there is padding (with none the models take their faster causal path)."""
    prompts = file.prompt_lengths[rows]
    lengths = prompts + file.target_lengths[rows]
    tokens = file.windows(file.starts[rows], int(lengths.max())).astype(np.int64)
    labels = tokens.copy()
    columns = np.arange(tokens.shape[1])
    labels[columns < prompts[:, None]] = IGNORED
    batch = {"input_ids": torch.from_numpy(tokens), "labels": torch.from_numpy(labels)}
    if weights is not None:
        batch["weights"] = torch.from_numpy(weights.at(file, rows[:, None], columns - prompts[:, None]))
    if lengths.min() < len(columns):
        padding = columns >= lengths[:, None]
        tokens[padding] = file.special.pad
        labels[padding] = IGNORED
        batch["attention_mask"] = torch.from_numpy((~padding).astype(np.int64))
    return batch


def seq2seq_batch(file: TokenFile, rows: Rows, weights: TokenWeights | None = None) -> Batch:
    """Return questions for the encoder and targets as labels, both padded on the right."""
    starts, prompts = file.starts[rows], file.prompt_lengths[rows]
    tokens, padding = _padded(file, starts, prompts, file.special.pad)
    labels, _ = _padded(file, starts + prompts, file.target_lengths[rows], IGNORED)
    batch = {
        "input_ids": torch.from_numpy(tokens),
        "attention_mask": torch.from_numpy((~padding).astype(np.int64)),
        "labels": torch.from_numpy(labels),
    }
    if weights is not None:
        batch["weights"] = torch.from_numpy(weights.at(file, rows[:, None], np.arange(labels.shape[1])[None]))
    return batch


def _padded(
    file: TokenFile, starts: Int64[ndarray, " batch"], lengths: Int[ndarray, " batch"], value: int
) -> tuple[Int64[ndarray, "batch longest"], Bool[ndarray, "batch longest"]]:
    """Return some ranges of a file's tokens, padded with a value, and a mask of the padding."""
    tokens = file.windows(starts, int(lengths.max())).astype(np.int64)
    padding = np.arange(tokens.shape[1]) >= lengths[:, None]
    tokens[padding] = value
    return tokens, padding


def packed_batch(file: TokenFile, rows: Rows, weights: TokenWeights | None = None) -> Batch:
    """Return several examples per row, first fit by decreasing length; each attends only to itself (block-diagonal
    causal mask) and has positions from 0, so the loss equals that of separate examples."""
    prompts = file.prompt_lengths[rows]
    lengths = prompts + file.target_lengths[rows]
    lines, begins = _first_fit(lengths, max(_PACKED_ROW_TOKENS, int(lengths.max())))
    shape = (int(lines.max()) + 1, int((begins + lengths).max()))
    # For each token: its position in its example, its place in the file, and its cell.
    positions = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.repeat(file.starts[rows], lengths) + positions
    cells = np.repeat(lines * shape[1] + begins, lengths) + positions
    tokens = _scattered(shape, cells, file.ids[places], file.special.pad)
    owners = _scattered(shape, cells, np.repeat(np.arange(len(rows)), lengths), -1)
    labels = np.where(positions < np.repeat(prompts, lengths), IGNORED, file.ids[places])
    visible = (owners[:, :, None] == owners[:, None, :]) & np.tri(shape[1], dtype=bool)
    # Eager attention adds the mask to its scores, so it contains numbers to add, not booleans.
    mask = np.where(visible, np.float32(0), np.finfo(np.float32).min)
    batch = {
        "input_ids": torch.from_numpy(tokens),
        "labels": torch.from_numpy(_scattered(shape, cells, labels, IGNORED)),
        "position_ids": torch.from_numpy(_scattered(shape, cells, positions, 0)),
        "attention_mask": torch.from_numpy(mask[:, None]),
    }
    if weights is not None:
        table = np.zeros(shape, dtype=np.float32)
        table.ravel()[cells] = weights.at(file, np.repeat(rows, lengths), positions - np.repeat(prompts, lengths))
        batch["weights"] = torch.from_numpy(table)
    return batch


def _scattered(
    shape: tuple[int, int], cells: Int64[ndarray, " tokens"], values: Int[ndarray, " tokens"], rest: int
) -> Int64[ndarray, "lines width"]:
    """Return a table with values in some cells, numbered line by line, and `rest` in the others."""
    table = np.full(shape, rest, dtype=np.int64)
    table.ravel()[cells] = values
    return table


def _first_fit(lengths: Int[ndarray, " batch"], capacity: int) -> tuple[Rows, Rows]:
    """Return the line of each example, and its offset in that line."""
    lines, begins = np.empty((2, len(lengths)), dtype=np.int64)
    used: list[int] = []
    for index in np.argsort(-lengths, kind="stable"):
        length = int(lengths[index])
        line = next((line for line, tokens in enumerate(used) if tokens + length <= capacity), len(used))
        if line == len(used):
            used.append(0)
        lines[index], begins[index] = line, used[line]
        used[line] += length
    return lines, begins
