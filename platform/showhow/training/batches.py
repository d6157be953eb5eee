"""Turns tokenised rows into batches: which rows, in which order, padded or packed how. The order is a function of the
seed.

A batch is a dict of tensors as the Hugging Face models take them, `labels` being -100 wherever no loss is taken: on the
question (the loss is on the response only) and on padding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from numpy import ndarray

from showhow.errors import TrialError
from showhow.sections.recipe import Recipe
from showhow.seeds import seed_for
from showhow.training.ranks import rank, world_size
from showhow.training.tokens import TokenFile

IGNORED = -100
Batch = dict[str, torch.Tensor]
Rows = Int64[ndarray, " batch"]

# Rows are sorted by length within a stretch of so many batches: long enough to waste little padding, short enough that
# the order stays random.
_GROUPED_BATCHES = 50
_PACKED_ROW_TOKENS = 256


def row_order(lengths: Int[ndarray, " rows"], batch_size: int, seed: int) -> Iterator[Rows]:
    """Yield the rows of one batch after another, without end: each pass over the dataset is a new permutation, and
    batches hold rows of similar length."""
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
    """What one optimizer step learns from: this process's micro-batches; and of the whole batch, over all processes,
    the tokens without padding and how many of them are targets."""

    micro_batches: list[Batch]
    tokens: int
    targets: int


def training_batches(
    file: TokenFile,
    recipe: Recipe,
    seed: int,
    is_seq2seq: bool,
    micro_batch_size: int | None = None,
    first_step: int = 0,
) -> Iterator[StepBatch]:
    """Yield the batch of one optimizer step after another, from `first_step` on, without end. The processes that train
    together deal each batch among them. micro_batch_size: another than the recipe's.

    Raises TrialError when the model cannot take packed rows."""
    if recipe.batching == "packed" and is_seq2seq:
        raise TrialError('batching = "packed" is for causal models only; use "grouped" for models with an encoder')
    collate = packed_batch if recipe.batching == "packed" else seq2seq_batch if is_seq2seq else causal_batch
    micro = micro_batch_size or recipe.micro_batch_size or recipe.batch_size
    lengths = file.prompt_lengths + file.target_lengths
    for rows in islice(row_order(lengths, recipe.batch_size, seed), first_step, None):
        own = rows[rank() :: world_size()]
        parts = np.array_split(own, -(-recipe.batch_size // (micro * world_size())))  # as many in every process
        tokens, targets = int(lengths[rows].sum()), int(file.target_lengths[rows].sum())
        yield StepBatch([collate(file, part) for part in parts], tokens, targets)


def causal_batch(file: TokenFile, rows: Rows) -> Batch:
    """Return question and target in one row, padded on the right: `input_ids`, `labels`, and `attention_mask` where
    there is padding (with none the models take their faster causal path)."""
    prompts = file.prompt_lengths[rows]
    lengths = prompts + file.target_lengths[rows]
    tokens = file.windows(file.starts[rows], int(lengths.max())).astype(np.int64)
    labels = tokens.copy()
    columns = np.arange(tokens.shape[1])
    labels[columns < prompts[:, None]] = IGNORED
    batch = {"input_ids": torch.from_numpy(tokens), "labels": torch.from_numpy(labels)}
    if lengths.min() < len(columns):
        padding = columns >= lengths[:, None]
        tokens[padding] = file.special.pad
        labels[padding] = IGNORED
        batch["attention_mask"] = torch.from_numpy((~padding).astype(np.int64))
    return batch


def seq2seq_batch(file: TokenFile, rows: Rows) -> Batch:
    """Return questions for the encoder and targets as labels, both padded on the right."""
    starts, prompts = file.starts[rows], file.prompt_lengths[rows]
    tokens, padding = _padded(file, starts, prompts, file.special.pad)
    labels, _ = _padded(file, starts + prompts, file.target_lengths[rows], IGNORED)
    return {
        "input_ids": torch.from_numpy(tokens),
        "attention_mask": torch.from_numpy((~padding).astype(np.int64)),
        "labels": torch.from_numpy(labels),
    }


def _padded(
    file: TokenFile, starts: Int64[ndarray, " batch"], lengths: Int[ndarray, " batch"], value: int
) -> tuple[Int64[ndarray, "batch longest"], Bool[ndarray, "batch longest"]]:
    """Return some stretches of a file's tokens, padded with a value, and where the padding is."""
    tokens = file.windows(starts, int(lengths.max())).astype(np.int64)
    padding = np.arange(tokens.shape[1]) >= lengths[:, None]
    tokens[padding] = value
    return tokens, padding


def packed_batch(file: TokenFile, rows: Rows) -> Batch:
    """Return several examples a row, first fit by decreasing length; each sees itself alone (block-diagonal causal
    mask) and counts its positions from 0, so the loss is that of the examples one by one."""
    prompts = file.prompt_lengths[rows]
    lengths = prompts + file.target_lengths[rows]
    lines, begins = _first_fit(lengths, max(_PACKED_ROW_TOKENS, int(lengths.max())))
    shape = (int(lines.max()) + 1, int((begins + lengths).max()))
    # Of each token: its position in its example, the place it comes from, and the cell it goes to.
    positions = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.repeat(file.starts[rows], lengths) + positions
    cells = np.repeat(lines * shape[1] + begins, lengths) + positions
    tokens = _scattered(shape, cells, file.ids[places], file.special.pad)
    owners = _scattered(shape, cells, np.repeat(np.arange(len(rows)), lengths), -1)
    labels = np.where(positions < np.repeat(prompts, lengths), IGNORED, file.ids[places])
    visible = (owners[:, :, None] == owners[:, None, :]) & np.tri(shape[1], dtype=bool)
    # Eager attention adds the mask to its scores, so it holds what to add, not true and false.
    mask = np.where(visible, np.float32(0), np.finfo(np.float32).min)
    return {
        "input_ids": torch.from_numpy(tokens),
        "labels": torch.from_numpy(_scattered(shape, cells, labels, IGNORED)),
        "position_ids": torch.from_numpy(_scattered(shape, cells, positions, 0)),
        "attention_mask": torch.from_numpy(mask[:, None]),
    }


def _scattered(
    shape: tuple[int, int], cells: Int64[ndarray, " tokens"], values: Int[ndarray, " tokens"], rest: int
) -> Int64[ndarray, "lines width"]:
    """Return a table with values in some cells, numbered line by line, and `rest` in the others."""
    table = np.full(shape, rest, dtype=np.int64)
    table.ravel()[cells] = values
    return table


def _first_fit(lengths: Int[ndarray, " batch"], capacity: int) -> tuple[Rows, Rows]:
    """Return the line that each example goes to, and where in it the example begins."""
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
