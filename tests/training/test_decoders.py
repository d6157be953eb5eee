"""Our generation writes token for token what transformers' own does, whatever the model, and with as few passes as it
can."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
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
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from showhow.sections.recipe import PretrainedModel
from showhow.training.cpu.attention_cache import TABLE_VOCABULARY
from showhow.training.cpu.llama_decoder import LlamaDecoder
from showhow.training.cpu.t5_decoder import T5Decoder
from showhow.training.model import build_model, is_seq2seq
from showhow.training.replies.decoder import Decoder
from showhow.training.replies.reply import greedy_replies
from showhow.training.replies.transformers_decoder import CausalDecoder, Seq2SeqDecoder
from showhow.training.tokens import SpecialTokens

small = {"vocab_size": 60, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LONGEST = 40
PROMPTS = [
    np.random.default_rng(number).integers(2, 60, length).astype(np.int32)
    for number, length in enumerate((3, 9, 4, 14, 4, 12, 1, 6, 7, 8, 2, 5, 9, 10, 11, 12, 13, 3, 20, 2))
]


def llama(**changes: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes | {"initializer_range": 0.3} | small | changes))


def t5(**changes: Any) -> Any:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    model = T5ForConditionalGeneration(T5Config(**sizes | small | {"decoder_start_token_id": 0} | changes))
    for parameter in model.parameters():  # biases of position too, which are small at first
        torch.nn.init.normal_(parameter, std=0.4)
    return model


LEAN: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "llama, tied": lambda: llama(tie_word_embeddings=True),
    "llama, one layer": lambda: llama(num_hidden_layers=1),
    "llama, grouped queries": lambda: llama(num_key_value_heads=2),
    "llama, wide heads": lambda: llama(head_dim=48, num_key_value_heads=1),
    "llama, theta 30": lambda: llama(rope_parameters={"rope_type": "default", "rope_theta": 30.0}),
    "llama, linear": lambda: llama(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}),
    "llama 3": lambda: llama(rope_parameters={"rope_type": "llama3", "rope_theta": 50.0} | LLAMA3),
    "llama, many tokens": lambda: llama(vocab_size=2 * TABLE_VOCABULARY),
    "t5": t5,
    "t5 1.1": lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5, near and far": lambda: t5(relative_attention_num_buckets=8, relative_attention_max_distance=16),
    "t5, start token": lambda: t5(decoder_start_token_id=7),
    "t5, many tokens": lambda: t5(vocab_size=2 * TABLE_VOCABULARY),
}
OTHER: dict[str, Callable[[], Any]] = {
    "llama with biases": lambda: llama(attention_bias=True),
    "llama with gelu": lambda: llama(hidden_act="gelu"),
    "llama, dynamic": lambda: llama(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, initializer_range=0.5, **small)),
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(hidden_size=32, n_layer=2, n_head=2, initializer_range=0.5, **small)
    ),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, init_std=0.5,
            word_embed_proj_dim=32, **small,
        )
    ),
    "gpt_neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            initializer_range=0.5, **small,
        )
    ),
    "qwen3": lambda: Qwen3ForCausalLM(
        Qwen3Config(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, initializer_range=0.5, **small,
        )
    ),
    "lfm2, with convolutions": lambda: Lfm2ForCausalLM(
        Lfm2Config(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
            initializer_range=0.5, layer_types=["conv", "full_attention", "conv"], **small,
        )
    ),
    "bart": lambda: BartForConditionalGeneration(
        BartConfig(
            d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=64, decoder_ffn_dim=64, init_std=0.5, forced_eos_token_id=None,
            decoder_start_token_id=1, **small,
        )
    ),
}  # fmt: skip
FAMILIES = LEAN | OTHER


def theirs(model: Any, end: int) -> list[list[int]]:
    """The replies of transformers, each prompt on its own, so that there is no padding."""
    replies = []
    for prompt in PROMPTS:
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=LONGEST,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=end,
        )[0].tolist()
        written = written[1:] if is_seq2seq(model) else written[len(prompt) :]
        replies.append(written[: written.index(end)] if end in written else written)
    return replies


@cache
def family(name: str) -> tuple[Any, SpecialTokens, list[list[int]]]:
    """A model with random weights, an end token that its replies come upon at different places, and transformers'
    replies."""
    torch.manual_seed(1)
    model = FAMILIES[name]().eval()
    whole = theirs(model, -1)
    firsts = {token: {reply.index(token) if token in reply else LONGEST for reply in whole} for token in range(2, 60)}
    end = max(firsts, key=lambda token: len(firsts[token]))
    replies = [reply[: reply.index(end)] if end in reply else reply for reply in whole]
    return model, SpecialTokens(0, end, None, model.config.vocab_size), replies


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_replies_are_token_for_token_those_of_transformers(name: str, batch_size: int) -> None:
    model, special, replies = family(name)
    assert len({len(reply) for reply in replies}) > 2
    assert greedy_replies(model, PROMPTS, special, LONGEST, batch_size) == replies
    padded_with_the_end = SpecialTokens(special.end, special.end, None, special.vocabulary)
    assert greedy_replies(model, PROMPTS, padded_with_the_end, LONGEST, batch_size) == replies


@pytest.mark.parametrize("name", FAMILIES)
def test_the_lean_decoders_read_what_they_know_and_nothing_else(name: str) -> None:
    model, _, _ = family(name)
    assert (LlamaDecoder.reads(model) or T5Decoder.reads(model)) == (name in LEAN)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_model_with_an_adapter_is_left_to_transformers(name: str) -> None:
    model = FAMILIES[name]()
    part = model.model.layers[1].mlp.up_proj if name == "llama" else model.decoder.block[1].layer[2].DenseReluDense.wi
    part.register_parameter("lora_A", torch.nn.Parameter(torch.zeros(1)))
    assert not LlamaDecoder.reads(model)
    assert not T5Decoder.reads(model)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_writing_leaves_the_weights_as_they_are(name: str) -> None:
    model, special, _ = family(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    greedy_replies(model, PROMPTS, special, 5, 7)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["llama, tied", "llama, grouped queries", "t5", "t5 1.1"])
def test_a_model_from_a_folder_writes_what_it_wrote_before(name: str, tmp_path: Path) -> None:
    model, special, replies = family(name)
    model.save_pretrained(tmp_path)
    loaded = build_model(PretrainedModel(kind="pretrained", name=str(tmp_path)), special, 0)
    assert greedy_replies(loaded, PROMPTS, special, LONGEST, 64) == replies


@pytest.mark.parametrize("name", LEAN)
def test_in_bfloat16_we_are_as_near_to_the_exact_logits_as_transformers_is(name: str) -> None:
    model, _, _ = family(name)
    tokens = torch.from_numpy(PROMPTS[3].astype(np.int64)).expand(3, -1)
    replies = torch.arange(2, 26).expand(3, -1)
    if is_seq2seq(model):
        lean, general = T5Decoder(model, 0), Seq2SeqDecoder(model, 0)
    else:
        lean, general = LlamaDecoder(model), CausalDecoder(model)
    with torch.inference_mode():
        exact = step_by_step(general, tokens, replies)
        assert torch.allclose(step_by_step(lean, tokens, replies), exact, atol=1e-3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = type(lean)(model, *([0] if is_seq2seq(model) else []))
            found = [step_by_step(decoder, tokens, replies).float() for decoder in (ours, general)]
    errors = [float((logits - exact).pow(2).mean().sqrt()) for logits in found]
    assert 0 < errors[0] < 1.5 * errors[1]


def step_by_step(decoder: Decoder, tokens: torch.Tensor, replies: torch.Tensor) -> torch.Tensor:
    """The logits before each token of replies, taken one after another."""
    first = decoder.begin(tokens, torch.ones_like(tokens))
    return torch.stack([first, *(decoder.advance(column) for column in replies[:, :-1].T)], dim=1)


def rows_of_each_pass(prompts: list[Any]) -> list[int]:
    """How many rows a model was shown at a time while it wrote."""
    model, special, _ = family("gpt2")
    rows: list[int] = []
    hook = model.register_forward_pre_hook(lambda *given: rows.append(len(given[2]["input_ids"])), with_kwargs=True)
    greedy_replies(model, prompts, special, LONGEST, 64)
    hook.remove()
    return rows


def test_generation_ends_as_soon_as_every_reply_has_ended() -> None:
    _, _, replies = family("gpt2")
    lengths = [len(reply) for reply in replies]
    chosen = [row for row in range(len(PROMPTS)) if lengths[row] < sorted(lengths)[6]]
    assert len(chosen) > 2
    assert len(rows_of_each_pass([PROMPTS[row] for row in chosen])) == max(lengths[row] for row in chosen) + 1 < LONGEST


def test_rows_that_have_ended_leave_the_batch() -> None:
    rows = rows_of_each_pass(PROMPTS)
    assert rows == sorted(rows, reverse=True)
    assert rows[0] == len(PROMPTS)
    assert len(set(rows)) > 3
