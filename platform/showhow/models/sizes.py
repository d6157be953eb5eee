"""The sizes of a model that decide its cost: parameters, layers, widths. For a scratch model from its settings, for a
pretrained one from config.json and the headers of its weights, in a local folder or in the cache of the Hugging Face
hub. Pure; no weight is read.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from showhow.models.folders import json_in, local_folder, of_text
from showhow.models.lengths import vocabulary_of
from showhow.models.weights import TensorShapes, is_called, is_embedding, read_weights
from showhow.sections.adapter import Adapter, Dora, PromptTuning
from showhow.sections.recipe import ModelSpec, ScratchModel
from showhow.sections.trial import Trial

# The names of each size in the configurations of transformers.
_HIDDEN = ("hidden_size", "d_model", "n_embd")
_LAYERS = ("num_decoder_layers", "decoder_layers", "num_hidden_layers", "num_layers", "n_layer")
_ENCODER_LAYERS = ("encoder_layers", "num_layers", "num_hidden_layers")
_HEADS = ("num_attention_heads", "decoder_attention_heads", "num_heads", "n_head")
_HEAD_SIZE = ("head_dim", "d_kv")
_MLP = ("intermediate_size", "d_ff", "decoder_ffn_dim", "n_inner", "ffn_dim")
_DROPOUT = ("dropout_rate", "resid_pdrop", "dropout")
_GATES = ("gate_proj", "wi_0", "gate_up_proj", "w1")
# Shared tensors that some files contain a second time.
_SHARED = {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}


@dataclass(frozen=True)
class ModelSizes:
    """Sizes that memory and arithmetic follow from.

    parameters: all, shared ones once. trained: the trained parameters; with an adapter, only its own. embedded: those
    in embeddings of tokens. hidden: width of the stream between layers. inner: heads x width of a head. mlp: width of
    the feed-forward part. layers: of the decoder or the only stack. encoder_layers: 0 where there is no encoder.
    family: `t5` where norms and gates are like T5's. has_fast_path: training/cpu/loss.py can train it on CPUs."""

    parameters: int
    trained: int
    embedded: int
    vocabulary: int
    hidden: int
    inner: int
    heads: int
    mlp: int
    layers: int
    encoder_layers: int = 0
    family: Literal["llama", "t5"] = "llama"
    is_gated: bool = True
    is_tied: bool = True
    has_dropout: bool = False
    has_fast_path: bool = False

    @property
    def multiplied(self) -> int:
        """Parameters in matrix products: a tied embedding is also the output matrix, others are only looked up in."""
        return self.parameters if self.is_tied else self.parameters - self.embedded


def sizes_of(trial: Trial) -> ModelSizes | None:
    """Return the sizes of a trial's model; None for a pretrained one that is not on this disk, or whose configuration
    lacks a size."""
    if isinstance(trial.model, ScratchModel):
        return _scratch(trial.model, vocabulary_of(trial))
    folder = local_folder(trial.model.name)
    return None if folder is None else _pretrained(folder, trial.adapter)


def _scratch(model: ScratchModel, vocabulary: int) -> ModelSizes:
    count, is_t5 = model.parameter_count(vocabulary), model.architecture == "t5"
    return ModelSizes(
        parameters=count,
        trained=count,
        embedded=vocabulary * model.hidden_size,
        vocabulary=vocabulary,
        hidden=model.hidden_size,
        inner=model.hidden_size,
        heads=model.attention_heads,
        mlp=model.feed_forward_size,
        layers=model.layers,
        encoder_layers=model.layers if is_t5 else 0,
        family="t5" if is_t5 else "llama",
        is_gated=not is_t5,
        is_tied=model.tie_embeddings,
        has_fast_path=True,
    )


def _pretrained(folder: Path, adapter: Adapter | None) -> ModelSizes | None:
    weights, settings = read_weights(folder), json_in(folder / "config.json")
    if isinstance(weights, str) or settings is None:
        return None
    try:
        return _by_settings(of_text(settings), weights, adapter)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _by_settings(settings: dict[str, Any], weights: TensorShapes, adapter: Adapter | None) -> ModelSizes:
    """Raises KeyError where a size is missing."""
    hidden, heads = _named(settings, _HIDDEN), _named(settings, _HEADS)
    is_tied = bool(settings.get("tie_word_embeddings", True))
    parameters, vocabulary = _count(weights, is_tied), int(settings["vocab_size"])
    is_gated = any(layer in _GATES for layer in weights.linear_layers)
    dropout = float(_named(settings, _DROPOUT, 0.0))
    return ModelSizes(
        parameters=parameters,
        trained=parameters if adapter is None else _adapter_parameters(adapter, weights, hidden),
        embedded=vocabulary * hidden,
        vocabulary=vocabulary,
        hidden=hidden,
        inner=heads * _named(settings, _HEAD_SIZE, hidden // heads),
        heads=heads,
        mlp=_named(settings, _MLP, 4 * hidden),
        layers=_named(settings, _LAYERS),
        encoder_layers=_named(settings, _ENCODER_LAYERS) if settings.get("is_encoder_decoder") else 0,
        family="t5" if "t5" in str(settings.get("model_type")) else "llama",
        is_gated=is_gated,
        is_tied=is_tied,
        has_dropout=dropout > 0,
        has_fast_path=adapter is None and _is_plain(settings, is_gated, dropout),
    )


def _is_plain(settings: dict[str, Any], is_gated: bool, dropout: float) -> bool:
    """True where training/cpu/loss.py supports a model of this kind."""
    kind, heads = settings.get("model_type"), settings.get("num_attention_heads")
    if kind == "t5":
        return not is_gated and dropout == 0
    rotary = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    own_keys = settings.get("num_key_value_heads", heads) == heads
    return kind == "llama" and own_keys and rotary.get("rope_type", "default") == "default"


def _named(settings: dict[str, Any], names: tuple[str, ...], default: Any = None) -> Any:
    for name in names:
        if isinstance(settings.get(name), int | float):
            return settings[name]
    if default is None:
        raise KeyError(names[0])
    return default


def _count(weights: TensorShapes, is_tied: bool) -> int:
    """Return the number of parameters, shared ones once."""
    names = set(weights.shapes)
    if is_tied and any(is_embedding(name) for name in names - _SHARED):
        names -= _SHARED
    return sum(prod(weights.shapes[name]) for name in names)


def _adapter_parameters(adapter: Adapter, weights: TensorShapes, hidden: int) -> int:
    """Return the parameters of an adapter: low-rank matrices of each changed layer, rank x (inputs + outputs) (Hu et
    al., arXiv 2106.09685), and DoRA's magnitude of each output; or the vectors of a tuned prompt."""
    if isinstance(adapter, PromptTuning):
        return adapter.tokens * hidden
    matrices = {name.removesuffix(".weight"): shape for name, shape in weights.shapes.items() if len(shape) == 2}
    changed = [shape for layer, shape in matrices.items() if _is_changed(layer, adapter.targets)]
    lengths = sum(shape[0] for shape in changed) if isinstance(adapter, Dora) else 0
    return adapter.rank * sum(map(sum, changed)) + lengths


def _is_changed(layer: str, targets: tuple[str, ...]) -> bool:
    return any(is_called(layer, target) for target in targets) if targets else not is_embedding(layer)


def held_bits(model: ModelSpec) -> int | None:
    """Return the number of bits of quantised frozen weights; None where they have the computing type."""
    quantise = "none" if isinstance(model, ScratchModel) else model.quantise
    return {"none": None, "8bit": 8, "4bit": 4}[quantise]
