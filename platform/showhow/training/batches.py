"""Turns tokenised rows into batches: which rows, in which order, padded or packed how. The order is a function of the
seed.

A batch is a dict of tensors as the Hugging Face models take them, `labels` being -100 wherever no loss is taken: on the
question (the loss is on the response only) and on padding.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray

from showhow.errors import TrialError
from showhow.seeds import seed_for
from showhow.study.recipe import Recipe
from showhow.training.tokens import TokenFile

IGNORED = -100
Batch = dict[str, torch.Tensor]

# Rows are sorted by length within a stretch of so many batches: long enough to waste little padding, short enough that
# the order stays random.
_GROUPED_BATCHES = 50
_PACKED_ROW_TOKENS = 256


def row_order(lengths: Int64[ndarray, " rows"], batch_size: int, seed: int) -> Iterator[Int64[ndarray, " batch"]]:
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
    """What one optimizer step learns from: its micro-batches, and the tokens in them without padding."""

    micro_batches: list[Batch]
    tokens: int


def training_batches(file: TokenFile, recipe: Recipe, seed: int, is_seq2seq: bool) -> Iterator[StepBatch]:
    """Yield the batch of one optimizer step after another, without end. Raises TrialError when the model cannot take
    packed rows."""
    if recipe.batching == "packed" and is_seq2seq:
        raise TrialError('batching = "packed" is for causal models only; use "grouped" for models with an encoder')
    collate = packed_batch if recipe.batching == "packed" else seq2seq_batch if is_seq2seq else causal_batch
    micro = recipe.micro_batch_size or recipe.batch_size
    lengths = file.prompt_lengths + file.target_lengths
    for rows in row_order(lengths, recipe.batch_size, seed):
        parts = [rows[start : start + micro] for start in range(0, len(rows), micro)]
        yield StepBatch([collate(file, part) for part in parts], int(lengths[rows].sum()))


def causal_batch(file: TokenFile, rows: Int64[ndarray, " batch"]) -> Batch:
    """Return question and target in one row, padded on the right: `input_ids`, `labels`, and `attention_mask` where
    there is padding (with none the models take their faster causal path)."""
    lengths = file.prompt_lengths[rows] + file.target_lengths[rows]
    shape = (len(rows), int(lengths.max()))
    tokens = np.full(shape, file.special.pad, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    for index, row in enumerate(rows):
        prompt, target = file.prompt(row), file.target(row)
        end = len(prompt) + len(target)
        tokens[index, : len(prompt)] = prompt
        tokens[index, len(prompt) : end] = target
        labels[index, len(prompt) : end] = target
    batch = {"input_ids": torch.from_numpy(tokens), "labels": torch.from_numpy(labels)}
    if lengths.min() < shape[1]:
        batch["attention_mask"] = torch.from_numpy((np.arange(shape[1]) < lengths[:, None]).astype(np.int64))
    return batch


def seq2seq_batch(file: TokenFile, rows: Int64[ndarray, " batch"]) -> Batch:
    """Return questions for the encoder and targets as labels, both padded on the right."""
    prompts = [file.prompt(row) for row in rows]
    mask = np.zeros((len(rows), max(map(len, prompts))), dtype=np.int64)
    for index, prompt in enumerate(prompts):
        mask[index, : len(prompt)] = 1
    return {
        "input_ids": _padded(prompts, file.special.pad),
        "attention_mask": torch.from_numpy(mask),
        "labels": _padded([file.target(row) for row in rows], IGNORED),
    }


def packed_batch(file: TokenFile, rows: Int64[ndarray, " batch"]) -> Batch:
    """Return several examples a row, first fit by decreasing length; each sees itself alone (block-diagonal causal
    mask) and counts its positions from 0, so the loss is that of the examples one by one."""
    lengths = file.prompt_lengths[rows] + file.target_lengths[rows]
    bins = _first_fit(lengths, max(_PACKED_ROW_TOKENS, int(lengths.max())))
    shape = (len(bins), max(sum(int(lengths[index]) for index in members) for members in bins))
    tokens = np.full(shape, file.special.pad, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    owners = np.full(shape, -1, dtype=np.int64)
    for line, members in enumerate(bins):
        start = 0
        for member in members:
            prompt, target = file.prompt(rows[member]), file.target(rows[member])
            end = start + len(prompt) + len(target)
            tokens[line, start:end] = np.concatenate([prompt, target])
            labels[line, start + len(prompt) : end] = target
            positions[line, start:end] = np.arange(end - start)
            owners[line, start:end] = member
            start = end
    together = owners[:, :, None] == owners[:, None, :]
    visible = together & np.tril(np.ones((shape[1], shape[1]), dtype=bool))
    # Eager attention adds the mask to its scores, so it holds what to add, not true and false.
    mask = np.where(visible, 0.0, np.finfo(np.float32).min).astype(np.float32)
    return {
        "input_ids": torch.from_numpy(tokens),
        "labels": torch.from_numpy(labels),
        "position_ids": torch.from_numpy(positions),
        "attention_mask": torch.from_numpy(mask[:, None]),
    }


def _first_fit(lengths: Int64[ndarray, " batch"], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room: list[int] = []
    for index in np.argsort(-lengths, kind="stable"):
        length = int(lengths[index])
        place = next((line for line, left in enumerate(room) if left >= length), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(int(index))
        room[place] -= length
    return bins


def _padded(rows: list[Int64[ndarray, " tokens"]], value: int) -> torch.Tensor:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)
