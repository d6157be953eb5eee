"""Our generation writes token for token what transformers' own does, and grades are taken from what was written."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from showhow.datasets.tokenizer import symbol_tokenizer
from showhow.study.recipe import Recipe, ScratchModel
from showhow.tasks import task_named
from showhow.tasks.base import Task
from showhow.tasks.explain import Level
from showhow.training.batches import IGNORED, causal_batch, seq2seq_batch, training_batches
from showhow.training.engine import PlainEngine
from showhow.training.evaluate import evaluate
from showhow.training.loop import train
from showhow.training.model import build_model, is_seq2seq
from showhow.training.reply import greedy_replies
from showhow.training.tokens import SpecialTokens, TokenFile

Files = Callable[..., TokenFile]
Trained = Callable[[str], torch.nn.Module]
small = {"vocab_size": 60, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}


def theirs(model: Any, prompts: list[Any], special: SpecialTokens, longest: int) -> list[list[int]]:
    """The replies of transformers, each prompt on its own, so that there is no padding."""
    replies = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt.astype(np.int64))[None].to(model.device)
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=longest,
            do_sample=False,
            pad_token_id=special.pad,
            eos_token_id=special.end,
        )[0].tolist()
        written = written[1:] if is_seq2seq(model) else written[len(prompt) :]
        replies.append(written[: written.index(special.end)] if special.end in written else written)
    return replies


@pytest.fixture(scope="module")
def trained(tokens: Files, varied: Task, recipe: Callable[..., Recipe], sizes: Callable[..., ScratchModel]) -> Trained:
    """A model of an architecture after a little training, so that its logits are no ties."""

    @cache
    def made(architecture: str) -> torch.nn.Module:
        file, of = tokens(varied, Level.SHORT, 300), recipe(max_examples=2400, batch_size=16, learning_rate=5e-3)
        model = build_model(sizes(architecture), file.special, 0)
        list(train(PlainEngine(model, of), of, training_batches(file, of, 0, is_seq2seq(model)), 2400))
        return model.eval()

    return made


@pytest.mark.parametrize("architecture", ["llama", "t5"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_replies_are_token_for_token_those_of_transformers(
    tokens: Files, varied: Task, trained: Trained, architecture: str, batch_size: int
) -> None:
    file, model = tokens(varied), trained(architecture)
    prompts = [file.prompt(row) for row in range(40)]
    assert len({len(prompt) for prompt in prompts}) > 3
    written = greedy_replies(model, prompts, file.special, 40, batch_size)
    assert written == theirs(model, prompts, file.special, 40)
    lengths = {len(reply) for reply in written}
    assert len(lengths) > 2
    assert min(lengths) < 40


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


def test_generation_ends_as_soon_as_every_reply_has_ended(tokens: Files, varied: Task, trained: Trained) -> None:
    file, model = tokens(varied), trained("llama")
    steps: list[int] = []
    model.register_forward_pre_hook(lambda *_: steps.append(1))
    written = greedy_replies(model, [file.prompt(row) for row in range(8)], file.special, 500, 8)
    model._forward_pre_hooks.clear()
    assert len(steps) == max(len(reply) for reply in written) + 1 < 100


@pytest.mark.parametrize(
    "make",
    [
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, initializer_range=0.5, **small)),
        lambda: BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=2, initializer_range=0.5, **small)),
        lambda: OPTForCausalLM(
            OPTConfig(
                hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, init_std=0.5,
                word_embed_proj_dim=32, **small,
            )
        ),
        lambda: GPTNeoXForCausalLM(
            GPTNeoXConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                initializer_range=0.5, **small,
            )
        ),
        lambda: Qwen3ForCausalLM(
            Qwen3Config(
                hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                num_key_value_heads=1, head_dim=16, initializer_range=0.5, **small,
            )
        ),
        lambda: BartForConditionalGeneration(
            BartConfig(
                d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
                encoder_ffn_dim=64, decoder_ffn_dim=64, init_std=0.5, forced_eos_token_id=None,
                decoder_start_token_id=1, **small,
            )
        ),
    ],
    ids=["gpt2", "bloom", "opt", "gpt_neox", "qwen3", "bart"],
)  # fmt: skip
def test_replies_are_those_of_transformers_for_the_families_that_people_fine_tune(make: Callable[[], Any]) -> None:
    torch.manual_seed(1)
    model = make().eval()
    special = SpecialTokens(pad=0, end=1, start=None, vocabulary=60)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(2, 60, length).astype(np.int32) for length in (3, 9, 4, 4, 12, 1)]
    for padding in (0, 1):  # also where padding is the end token
        special = SpecialTokens(pad=padding, end=1, start=None, vocabulary=60)
        assert greedy_replies(model, prompts, special, 12, 6) == theirs(model, prompts, special, 12)


def test_tokens_per_reply_counts_the_end_only_where_it_was_written(
    tokens: Files, varied: Task, trained: Trained
) -> None:
    file, model = tokens(varied), trained("llama")
    tokenizer = symbol_tokenizer([varied]).tokenizer
    longest = int(file.target_lengths[:40].max()) + 4
    written = greedy_replies(model, [file.prompt(row) for row in range(40)], file.special, longest, 40)
    found = evaluate(model, tokenizer, file, Level.LONG, 40, 16)
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
        self.config: Any = type("Config", (), {"is_encoder_decoder": False})
        self.logits = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(token), vocabulary).float())

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **_: Any) -> Any:
        return type("Output", (), {"logits": self.logits.expand(*input_ids.shape, -1), "past_key_values": None})


@pytest.mark.parametrize("level", [Level.NONE, Level.LONG, Level.FILLER])
def test_an_empty_reply_and_one_without_an_answer_are_wrong(tokens: Files, level: Level) -> None:
    task = task_named("modular_sum", {"terms": 3, "below": 6, "modulus": 3})
    file, tokenizer = tokens(task, level), symbol_tokenizer([task]).tokenizer
    longest = int(file.target_lengths.max()) + 4
    for token, length in ((file.special.end, 1), (tokenizer.token_to_id("="), longest), (file.special.pad, longest)):
        found = evaluate(Parrot(token, file.special.vocabulary), tokenizer, file, level, 30, 8)
        assert found.metrics["accuracy"] == 0.0
        assert found.metrics["tokens_per_reply"] == length
        assert found.metrics.get("steps_right", 0.0) == 0.0
        assert found.metrics.get("first_wrong_step", 1.0) == 1.0
        assert (len(found.grades), len(found.samples)) == (30, 20)


def test_an_evaluation_bounds_what_it_asks(tokens: Files, varied: Task, trained: Trained) -> None:
    file, tokenizer = tokens(varied), symbol_tokenizer([varied]).tokenizer
    few, all_ = (evaluate(trained("llama"), tokenizer, file, Level.LONG, count, 16) for count in (5, 10**6))
    assert (len(few.grades), len(all_.grades)) == (5, 100)
    assert [row["question"] for row in few.samples] == file.texts("question", 5)
    assert all_.grades[:5] == few.grades
