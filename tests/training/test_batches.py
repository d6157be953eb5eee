"""Laws of batches: every row once a pass, the order a function of the seed, the loss on the response only."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.errors import TrialError
from showhow.sections.recipe import Recipe, ScratchModel
from showhow.tasks.base import Task
from showhow.training.batches import (
    IGNORED,
    Source,
    causal_batch,
    packed_batch,
    row_order,
    seq2seq_batch,
    training_batches,
)
from showhow.training.losses import response_loss
from showhow.training.model import build_model
from showhow.training.tokens import TokenFile

Files = Callable[..., TokenFile]


@given(rows=st.integers(1, 300), batch=st.integers(1, 64), seed=st.integers(0, 99), taken=st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_no_row_is_ever_a_whole_pass_ahead_of_another(rows: int, batch: int, seed: int, taken: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 50, rows)
    stretch = min(50, max(1, rows // batch))  # batches among which rows of similar length are put together
    chosen = list(islice(row_order(lengths, batch, seed), stretch * taken))
    assert all(len(part) == batch for part in chosen)
    counts = np.bincount(np.concatenate(chosen), minlength=rows)
    assert counts.max() - counts.min() <= 1


def test_each_pass_over_the_dataset_sees_each_row_once_and_in_another_order() -> None:
    lengths = np.ones(96, dtype=np.int64)
    order = row_order(lengths, 8, 0)
    passes = [np.concatenate(list(islice(order, 12))) for _ in range(4)]
    assert all(sorted(rows) == list(range(96)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == 4


def test_the_order_is_a_function_of_the_seed() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 100)
    one, again, other = (np.concatenate(list(islice(row_order(lengths, 8, seed), 40))).tolist() for seed in (3, 3, 4))
    assert one == again != other


def test_rows_of_similar_length_share_a_batch_and_batches_come_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 1600)
    chosen = list(islice(row_order(lengths, 16, 0), 100))
    spread = np.mean([np.ptp(lengths[rows]) for rows in chosen])
    assert spread < 10 < 150 < np.ptp(lengths)
    means = [lengths[rows].mean() for rows in chosen]
    assert abs(np.corrcoef(means, range(100))[0, 1]) < 0.3


def test_the_tokens_of_a_batch_are_counted_without_padding(tokens: Files, varied: Task, recipe: Any) -> None:
    file = tokens(varied)
    for batching in ("grouped", "packed"):
        batches = training_batches(Source(file, recipe(batching=batching, batch_size=6, micro_batch_size=2), 0, False))
        for step in islice(batches, 20):
            assert len(step.micro_batches) == 3
            real = sum(int((batch["labels"] != IGNORED).sum()) for batch in step.micro_batches)
            assert real < step.tokens <= sum(batch["input_ids"].numel() for batch in step.micro_batches)
    rows = np.arange(5)
    whole = int((file.prompt_lengths + file.target_lengths)[rows].sum())
    assert int(causal_batch(file, rows)["attention_mask"].sum()) == whole


def test_the_loss_is_on_the_response_only(tokens: Files, varied: Task) -> None:
    file, rows = tokens(varied), np.arange(12)
    causal, packed, encoded = (make(file, rows) for make in (causal_batch, packed_batch, seq2seq_batch))
    expected = Counter(int(token) for row in rows for token in file.target(row))
    for batch in (causal, packed, encoded):
        assert Counter(batch["labels"][batch["labels"] != IGNORED].tolist()) == expected
    for index, row in enumerate(rows):
        length = len(file.prompt(row))
        assert set(causal["labels"][index, :length].tolist()) == {IGNORED}
        assert causal["input_ids"][index, :length].tolist() == file.prompt(row).tolist()
        assert causal["input_ids"][index, length:][: len(file.target(row))].tolist() == file.target(row).tolist()
        assert encoded["input_ids"][index, :length].tolist() == file.prompt(row).tolist()
        assert int(encoded["attention_mask"][index].sum()) == length
    assert packed["input_ids"].shape[0] < len(rows)


def test_rows_of_equal_length_need_no_mask(tokens: Files, easy: Task) -> None:
    assert "attention_mask" not in causal_batch(tokens(easy), np.arange(4))


@given(rows=st.lists(st.integers(0, 99), min_size=1, max_size=12))
@settings(deadline=None, max_examples=100)
def test_every_batch_holds_exactly_the_tokens_of_its_rows_wherever_they_stand_in_the_file(
    tokens: Files, varied: Task, rows: list[int]
) -> None:
    file = tokens(varied)
    chosen = np.array([*rows, len(file) - 1])  # the last row has nothing but a footer behind it
    causal, packed, encoded = (make(file, chosen) for make in (causal_batch, packed_batch, seq2seq_batch))
    mask = causal.get("attention_mask", torch.ones_like(causal["labels"]))
    for index, row in enumerate(chosen):
        prompt, target = file.prompt(row).tolist(), file.target(row).tolist()
        length = len(prompt) + len(target)
        blank = causal["labels"].shape[1] - length
        assert causal["input_ids"][index].tolist() == prompt + target + [file.special.pad] * blank
        assert causal["labels"][index].tolist() == [IGNORED] * len(prompt) + target + [IGNORED] * blank
        assert mask[index].tolist() == [1] * length + [0] * blank
        assert encoded["input_ids"][index, : len(prompt)].tolist() == prompt
        assert set(encoded["input_ids"][index, len(prompt) :].tolist()) <= {file.special.pad}
        assert encoded["labels"][index, : len(target)].tolist() == target
        assert set(encoded["labels"][index, len(target) :].tolist()) <= {IGNORED}
    begins = (packed["position_ids"] == 0) & (packed["input_ids"] != file.special.pad)
    found = []
    for line, column in begins.nonzero().tolist():
        (seen,) = (packed["attention_mask"][line, 0, :, column] == 0).nonzero(as_tuple=True)
        found.append((packed["input_ids"][line, seen].tolist(), packed["labels"][line, seen].tolist()))
    whole = [(file.prompt(row).tolist(), file.target(row).tolist()) for row in chosen]
    assert sorted(found) == sorted((prompt + target, [IGNORED] * len(prompt) + target) for prompt, target in whole)


def test_the_order_of_a_seed_is_what_it_always_was() -> None:
    first = [rows.tolist() for rows in islice(row_order(np.arange(20) * 7 % 13, 4, 5), 5)]
    assert first == [[1, 3, 16, 18], [5, 7, 9, 11], [8, 10, 12, 14], [17, 4, 6, 19], [13, 0, 15, 2]]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_packed_loss_is_that_of_the_rows_one_by_one(
    tokens: Files, varied: Task, sizes: Callable[..., ScratchModel], attention: str
) -> None:
    file, rows = tokens(varied), np.arange(24)
    model: Any = build_model(sizes(), file.special, 0)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        alone = sum(float(response_loss(model, causal_batch(file, rows[index : index + 1]))) for index in rows)
        padded = float(response_loss(model, causal_batch(file, rows)))
        packed = float(response_loss(model, packed_batch(file, rows)))
    assert padded == pytest.approx(alone, rel=1e-5)
    assert packed == pytest.approx(alone, rel=1e-5)


def test_a_model_with_an_encoder_refuses_packed_rows(tokens: Files, recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(TrialError, match="causal models only"):
        next(training_batches(Source(tokens(), recipe(batching="packed"), 0, True)))
