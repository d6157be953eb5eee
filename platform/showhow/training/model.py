"""Builds the model of a trial: from a configuration with random weights, or from pretrained safetensors."""

import inspect
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from showhow.errors import TrialError
from showhow.seeds import seed_for
from showhow.study.recipe import ModelSpec, ScratchModel
from showhow.training.tokens import SpecialTokens

# Positions are relative or rotary in both architectures, so this bounds nothing; it is a number the configuration
# wants.
_POSITIONS = 8192


def build_model(spec: ModelSpec, special: SpecialTokens, seed: int) -> torch.nn.Module:
    """Return the model of a run on the CPU in float32. The same seed gives the same random weights.

    Raises TrialError when pretrained weights cannot be loaded."""
    torch.manual_seed(seed_for("weights", seed))
    if isinstance(spec, ScratchModel):
        return _scratch_llama(spec, special) if spec.architecture == "llama" else _scratch_t5(spec, special)
    return _pretrained(spec.name, special)


def is_seq2seq(model: torch.nn.Module) -> bool:
    """True for models with an encoder for the question and a decoder for the reply."""
    config: Any = model.config
    return bool(config.is_encoder_decoder)


def parameter_count(model: torch.nn.Module) -> int:
    """Number of trainable parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _scratch_llama(spec: ScratchModel, special: SpecialTokens) -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=special.vocabulary,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.feed_forward_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.attention_heads,
        max_position_embeddings=_POSITIONS,
        initializer_range=spec.initializer_range,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        tie_word_embeddings=spec.tie_embeddings,
        pad_token_id=special.pad,
        eos_token_id=special.end,
        bos_token_id=special.start,
        attn_implementation=_attention(),
    )
    return LlamaForCausalLM(config)  # type: ignore[no-any-return]


def _scratch_t5(spec: ScratchModel, special: SpecialTokens) -> torch.nn.Module:
    config = T5Config(
        vocab_size=special.vocabulary,
        d_model=spec.hidden_size,
        d_kv=spec.hidden_size // spec.attention_heads,
        d_ff=spec.feed_forward_size,
        num_layers=spec.layers,
        num_heads=spec.attention_heads,
        dropout_rate=0.0,
        tie_word_embeddings=spec.tie_embeddings,
        pad_token_id=special.pad,
        eos_token_id=special.end,
        decoder_start_token_id=special.pad,
        attn_implementation=_attention(),
    )
    return T5ForConditionalGeneration(config)  # type: ignore[no-any-return]


def _attention() -> str:
    """Eager attention is twice as fast as SDPA for small models on a CPU in bfloat16, whose SDPA backward pass is slow
    (16.7 against 33.4 ms a step: hidden size 64, batch 16, AMD EPYC with avx512_bf16; docs/log.md)."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def _pretrained(name: str, special: SpecialTokens) -> torch.nn.Module:
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(name, use_safetensors=True, trust_remote_code=False, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TrialError(f'the model "{name}" cannot be loaded: {error}') from None
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise TrialError(
            f'the model "{name}" ({config.model_type}) keeps no keys and values, so it cannot be evaluated'
        )
    if special.vocabulary > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(special.vocabulary)  # its tokenizer was given tokens, often a padding one
    return model  # type: ignore[no-any-return]
