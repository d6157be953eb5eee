"""Builds the model of a trial: from a configuration with random weights, or from pretrained safetensors, with an
adapter if the trial has one (training/adapter.py)."""

import inspect
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import is_flash_attn_2_available

from showhow.errors import TrialError
from showhow.models.settings import positions_of
from showhow.sections.adapter import Adapter
from showhow.sections.recipe import ModelSpec, PretrainedModel, Recipe, ScratchModel
from showhow.seeds import seed_for
from showhow.training.adapter import is_adapted, tuned_prompt, with_adapter
from showhow.training.precision import computing_type
from showhow.training.tokens import SpecialTokens

# The configuration requires a number, which has no effect: both architectures have relative or rotary positions.
_POSITIONS = 8192
# The oldest GPUs that flash attention supports (Ampere).
_FLASH_CAPABILITY = (8, 0)


def build_model(
    spec: ModelSpec,
    special: SpecialTokens,
    seed: int,
    adapter: Adapter | None = None,
    recipe: Recipe | None = None,
    recompute_activations: bool = False,
) -> torch.nn.Module:
    """Return the model of a run, a function of the seed.

    All weights are trained, in float32, unless the model has an adapter: then its own weights are frozen, and stored in
    the computing type of the recipe (float32 without a recipe), or quantised as in `spec.quantise`. The model is on the
    CPU; if quantised, on the GPU. recompute_activations: save only the input of each layer, and compute the other
    activations again in the backward pass.

    Raises TrialError when pretrained weights cannot be loaded or the adapter does not fit them."""
    torch.manual_seed(seed_for("weights", seed))
    model: Any
    if isinstance(spec, PretrainedModel):
        model = _pretrained(spec, special, adapter is not None, recipe)
    else:
        model = _scratch_llama(spec, special) if spec.architecture == "llama" else _scratch_t5(spec, special)
    if recompute_activations:
        try:
            model.activation_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise TrialError(f"sharding.recompute_activations: {error}") from None
    return model if adapter is None else with_adapter(model, adapter, seed)


def is_seq2seq(model: torch.nn.Module) -> bool:
    """True for models with an encoder for the question and a decoder for the reply."""
    config: Any = model.config
    return bool(config.is_encoder_decoder)


def parameter_count(model: torch.nn.Module) -> int:
    """Return the number of trainable parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def positions(model: Any) -> int | None:
    """Return the number of positions of the model, less those that prompt tuning takes; None where positions are
    relative."""
    found, prompt = positions_of(model.config.to_dict()), tuned_prompt(model)
    return found if found is None or prompt is None else found - prompt.shape[1]


def flops_per_token(model: Any) -> float:
    """Return the operations of training on a token: for each weight 2 forward, 2 to pass the gradient back, and 2 for
    its own gradient where it is trained (Kaplan et al., arXiv 2001.08361: 6 in total)."""
    if not is_adapted(model):
        return 6.0 * parameter_count(model)
    trained, weights = model.get_nb_trainable_parameters()
    return float(4 * weights + 2 * trained)


def forward_flops_per_token(model: torch.nn.Module, training_flops: float) -> float:
    """Return the operations of a forward pass on a token: 2 for each weight. training_flops: of training on a token."""
    if not is_adapted(model):
        return training_flops / 3
    found: Any = model
    _, weights = found.get_nb_trainable_parameters()
    return 2.0 * float(weights)


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
        attn_implementation=_scratch_attention(),
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
        attn_implementation=_scratch_attention(),
    )
    return T5ForConditionalGeneration(config)  # type: ignore[no-any-return]


def _scratch_attention() -> str:
    """Return the attention of scratch models. For small models on a CPU in bfloat16 eager attention is twice as fast as
    SDPA, whose backward pass is slow there (16.7 against 33.4 ms a step: hidden size 64, batch 16, AMD EPYC with
    avx512_bf16; docs/log.md)."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def _pretrained(spec: PretrainedModel, special: SpecialTokens, is_frozen: bool, recipe: Recipe | None) -> Any:
    name, where = spec.name, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    computed = torch.float32 if recipe is None else computing_type(recipe.precision, where)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(
            name,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=computed if is_frozen else torch.float32,
            quantization_config=_quantisation(spec, computed),
            attn_implementation=_attention(kind, config, computed, recipe),
        )
    except torch.OutOfMemoryError:
        raise  # not a fault of the model: it may fit with another layout
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise TrialError(f'the model "{name}" cannot be loaded: {error}') from None
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise TrialError(
            f'the model "{name}" ({config.model_type}) has no cache of keys and values, so it cannot be evaluated'
        )
    rows = model.get_input_embeddings().num_embeddings
    if special.vocabulary > rows:  # tokens were added to its tokenizer, often for padding
        if is_frozen:
            raise TrialError(
                f'the tokenizer of "{name}" has {special.vocabulary:,} tokens and the model {rows:,}; new ones cannot '
                "be learnt while the model's own weights are frozen: remove them, or train without an adapter"
            )
        model.resize_token_embeddings(special.vocabulary)
    return model


def _quantisation(spec: PretrainedModel, computed: torch.dtype) -> BitsAndBytesConfig | None:
    """Return how frozen weights are quantised: to 8 bits with separate outliers (LLM.int8(), arXiv 2208.07339), to 4
    bits as normal floats with quantised scales (QLoRA, arXiv 2305.14314)."""
    if spec.quantise == "none":
        return None
    if spec.quantise == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computed,
    )


def _attention(kind: Any, config: Any, computed: torch.dtype, recipe: Recipe | None) -> str | None:
    """Return flash attention where it is installed and applicable: it skips padding, and supports neither float32 nor
    the mask of packed rows. Else return None, for which transformers takes SDPA where the model has it: pretrained
    models are large and their texts long, and SDPA never stores the scores of all pairs of tokens."""
    if not is_flash_attn_2_available() or torch.cuda.get_device_capability() < _FLASH_CAPABILITY:
        return None
    packs = recipe is not None and recipe.batching == "packed"
    model = kind._model_mapping.get(type(config))
    is_supported = model is not None and model._supports_flash_attn
    return "flash_attention_2" if is_supported and not packs and computed != torch.float32 else None
