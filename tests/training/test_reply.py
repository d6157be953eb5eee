"""Grades are taken from what a model writes, and what it writes is what its training said it would."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedConfig

from showhow.datasets.tokenizer import symbol_tokenizer
from showhow.errors import OutOfMemoryError
from showhow.sections.recipe import Recipe, ScratchModel
from showhow.tasks import task_named
from showhow.tasks.base import Task
from showhow.tasks.explain import Level
from showhow.training.batches import IGNORED, Source, causal_batch, seq2seq_batch, training_batches
from showhow.training.engine import PlainEngine
from showhow.training.evaluate import Grading, evaluate
from showhow.training.loop import train
from showhow.training.model import build_model, is_seq2seq
from showhow.training.replies.reply import greedy_replies
from showhow.training.tokens import TokenFile

Files = Callable[..., TokenFile]
Trained = Callable[[str], torch.nn.Module]


@pytest.fixture(scope="module")
def trained(tokens: Files, varied: Task, recipe: Callable[..., Recipe], sizes: Callable[..., ScratchModel]) -> Trained:
    """A model of an architecture after a little training, so that its logits are no ties."""

    @cache
    def made(architecture: str) -> torch.nn.Module:
        file, of = tokens(varied, Level.SHORT, 300), recipe(max_examples=2400, batch_size=16, learning_rate=5e-3)
        model = build_model(sizes(architecture), file.special, 0)
        list(train(PlainEngine(model, of), of, training_batches(Source(file, of, 0, is_seq2seq(model))), 2400))
        return model.eval()

    return made


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_reply_is_cut_at_the_greatest_length_and_never_holds_the_end(
    tokens: Files, varied: Task, trained: Trained, architecture: str
) -> None:
    file, model = tokens(varied), trained(architecture)
    prompts = [file.prompt(row) for row in range(30)]
    whole = greedy_replies(model, prompts, file.special, 40, 30)
    for longest in (1, 2, 5, 9):
        assert greedy_replies(model, prompts, file.special, longest, 30) == [reply[:longest] for reply in whole]
    assert not any(file.special.end in reply for reply in whole)
    assert greedy_replies(model, [], file.special, 5, 8) == []


def test_tokens_per_reply_counts_the_end_only_where_it_was_written(
    tokens: Files, varied: Task, trained: Trained
) -> None:
    file, model = tokens(varied), trained("llama")
    tokenizer = symbol_tokenizer([varied]).tokenizer
    longest = int(file.target_lengths[:40].max()) + 4
    written = greedy_replies(model, [file.prompt(row) for row in range(40)], file.special, longest, 40)
    found = evaluate(model, Grading(tokenizer, Level.LONG), file, 40, 16)
    expected = sum(len(reply) + (len(reply) < longest) for reply in written) / 40
    assert found.metrics["tokens_per_reply"] == pytest.approx(expected)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_reply_is_the_target_exactly_where_training_would_find_nothing_to_correct(
    tokens: Files, varied: Task, trained: Trained, architecture: str
) -> None:
    file, model = tokens(varied, Level.SHORT, 300), trained(architecture)
    rights = []
    for row in range(60):
        batch = (seq2seq_batch if is_seq2seq(model) else causal_batch)(file, np.arange(row, row + 1))
        with torch.no_grad():
            best = model(**batch).logits[0].argmax(-1)
        labels = batch["labels"][0]
        predicted = best if is_seq2seq(model) else best[:-1]
        labels = labels if is_seq2seq(model) else labels[1:]
        rights.append(bool((predicted == labels)[labels != IGNORED].all()))
    written = greedy_replies(model, [file.prompt(row) for row in range(60)], file.special, 40, 16)
    assert [[*reply, file.special.end] == file.target(row).tolist() for row, reply in enumerate(written)] == rights
    assert 0 < sum(rights) < 60


class Parrot(torch.nn.Module):
    """A model that always writes the same token."""

    def __init__(self, token: int, vocabulary: int) -> None:
        super().__init__()
        self.config = PreTrainedConfig(is_encoder_decoder=False)
        self.logits = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(token), vocabulary).float())

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **_: Any) -> Any:
        return type("Output", (), {"logits": self.logits.expand(*input_ids.shape, -1), "past_key_values": None})


@pytest.mark.parametrize("level", [Level.NONE, Level.LONG, Level.FILLER])
def test_an_empty_reply_and_one_without_an_answer_are_wrong(tokens: Files, level: Level) -> None:
    task = task_named("modular_sum", {"terms": 3, "below": 6, "modulus": 3})
    file, tokenizer = tokens(task, level), symbol_tokenizer([task]).tokenizer
    longest = int(file.target_lengths.max()) + 4
    for token, length in ((file.special.end, 1), (tokenizer.token_to_id("="), longest), (file.special.pad, longest)):
        found = evaluate(Parrot(token, file.special.vocabulary), Grading(tokenizer, level), file, 30, 8)
        assert found.metrics["accuracy"] == 0.0
        assert found.metrics["tokens_per_reply"] == length
        assert found.metrics.get("steps_right", 0.0) == 0.0
        assert found.metrics.get("first_wrong_step", 1.0) == 1.0
        assert (len(found.grades), len(found.samples)) == (30, 20)


class Narrow(Parrot):
    """A parrot with room for so many replies at a time; weights that are shared out are nowhere whole."""

    def __init__(self, room_for: int, vocabulary: int, is_shared_out: bool = False) -> None:
        super().__init__(1, vocabulary)
        self.room_for, self.asked = room_for, list[int]()
        if is_shared_out:
            self.shared = torch.nn.Parameter(torch.empty(0))

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **_: Any) -> Any:
        self.asked.append(len(input_ids))
        if len(input_ids) > self.room_for:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(input_ids, past_key_values)


def test_where_memory_runs_out_half_as_many_are_asked_at_a_time_and_the_replies_are_the_same(tokens: Files) -> None:
    file, tokenizer = tokens(), symbol_tokenizer([task_named("modular_sum", {})]).tokenizer
    wide, narrow = (Narrow(rows, file.special.vocabulary) for rows in (30, 4))
    expected, found = (evaluate(model, Grading(tokenizer, Level.LONG), file, 30, 16) for model in (wide, narrow))
    assert (expected.asked_at_once, expected.shortage) == (16, "")
    assert found == replace(expected, asked_at_once=4, shortage=found.shortage)
    assert found.shortage.startswith("out of memory writing replies to 16 questions at a time (CUDA out of")
    assert narrow.asked[:3] == [16, 8, 4]
    few = evaluate(Narrow(4, file.special.vocabulary), Grading(tokenizer, Level.LONG), file, 6, 16)
    assert few.asked_at_once == 3  # half of what there was, not of what there might have been


@pytest.mark.parametrize(("room_for", "is_shared_out", "asked_at_once"), [(0, False, 1), (4, True, 16)])
def test_where_one_is_too_much_or_weights_are_shared_out_the_error_tells_how_many_were_asked(
    tokens: Files, room_for: int, is_shared_out: bool, asked_at_once: int
) -> None:
    file, tokenizer = tokens(), symbol_tokenizer([task_named("modular_sum", {})]).tokenizer
    with pytest.raises(OutOfMemoryError) as caught:
        evaluate(Narrow(room_for, file.special.vocabulary, is_shared_out), Grading(tokenizer, Level.LONG), file, 30, 16)
    assert caught.value.asked_at_once == asked_at_once


def test_an_evaluation_bounds_what_it_asks(tokens: Files, varied: Task, trained: Trained) -> None:
    file, tokenizer = tokens(varied), symbol_tokenizer([varied]).tokenizer
    few, all_ = (evaluate(trained("llama"), Grading(tokenizer, Level.LONG), file, count, 16) for count in (5, 10**6))
    assert (len(few.grades), len(all_.grades)) == (5, 100)
    assert [row["question"] for row in few.samples] == file.texts("question", 5)
    assert all_.grades[:5] == few.grades
