"""How large a model is, by what it costs: parameters, layers, widths. Of a scratch model by its settings, of a
pretrained one by the config.json and the headers of the weights in its folder, or in the cache of the Hugging Face hub.
Pure; no weight is read.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, Literal

from showhow.study.adapter import Adapter, Dora, PromptTuning
from showhow.study.lengths import vocabulary_of
from showhow.study.recipe import PretrainedModel, ScratchModel
from showhow.study.trial import Trial
from showhow.study.weights import StoredWeights, read_weights

# Under which names the configurations of transformers give a size.
_HIDDEN = ("hidden_size", "d_model", "n_embd")
_LAYERS = ("num_decoder_layers", "decoder_layers", "num_hidden_layers", "num_layers", "n_layer")
_ENCODER_LAYERS = ("encoder_layers", "num_layers", "num_hidden_layers")
_HEADS = ("num_attention_heads", "decoder_attention_heads", "num_heads", "n_head")
_HEAD_SIZE = ("head_dim", "d_kv")
_MLP = ("intermediate_size", "d_ff", "decoder_ffn_dim", "n_inner", "ffn_dim")
_DROPOUT = ("dropout_rate", "resid_pdrop", "dropout")
_GATES = ("gate_proj", "wi_0", "gate_up_proj", "w1")
# What no adapter changes, and no product of matrices reads.
_NO_PRODUCT = ("embed", "wte", "wpe", "shared", "relative_attention_bias")
_WRITES_TOKENS = "lm_head"


@dataclass(frozen=True)
class ModelSizes:
    """Sizes that memory and arithmetic follow from.

    parameters: all, shared ones once; trained: those that are, with an adapter its own alone. embedded: in matrices
    that tokens are looked up in. hidden: width of the stream from layer to layer; inner: heads x their width; mlp:
    width of the feed-forward part. layers: of the decoder or the only stack; encoder_layers: 0 where there is none.
    family: `t5` where norms and gates are as there. kept_lean: training/lean.py trains it on CPUs."""

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
    kept_lean: bool = False

    @property
    def multiplied(self) -> int:
        """Parameters in products of matrices: a tied embedding writes tokens out, others only look up."""
        return self.parameters if self.is_tied else self.parameters - self.embedded


def sizes_of(trial: Trial) -> ModelSizes | None:
    """Return the sizes of a trial's model; None for a pretrained one that is not on this disk, or says too little."""
    if isinstance(trial.model, ScratchModel):
        return _scratch(trial.model, vocabulary_of(trial))
    folder = stored_folder(trial.model.name)
    return None if folder is None else _stored(folder, trial.adapter)


def stored_folder(name: str) -> Path | None:
    """Return where a pretrained model lies: a local folder, or its snapshot in the cache of the Hugging Face hub
    (https://huggingface.co/docs/huggingface_hub/guides/manage-cache); None where it is not on this disk."""
    if Path(name).is_dir():
        return Path(name)
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cached = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    entry = cached / f"models--{name.replace('/', '--')}"
    try:
        snapshot = entry / "snapshots" / (entry / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return snapshot if snapshot.is_dir() else None


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
        kept_lean=True,
    )


def _stored(folder: Path, adapter: Adapter | None) -> ModelSizes | None:
    weights = read_weights(folder)
    try:
        settings: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(weights, str):
            return None
        return _by_settings(settings.get("text_config") or settings, weights, adapter)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _by_settings(settings: dict[str, Any], weights: StoredWeights, adapter: Adapter | None) -> ModelSizes:
    """Raises KeyError where a size is missing."""
    hidden, heads = _named(settings, _HIDDEN), _named(settings, _HEADS)
    is_seq2seq, family = bool(settings.get("is_encoder_decoder")), _family(settings)
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
        encoder_layers=_named(settings, _ENCODER_LAYERS) if is_seq2seq else 0,
        family=family,
        is_gated=is_gated,
        is_tied=is_tied,
        has_dropout=dropout > 0,
        kept_lean=adapter is None and _is_plain(settings, is_gated, dropout),
    )


def _family(settings: dict[str, Any]) -> Literal["llama", "t5"]:
    return "t5" if "t5" in str(settings.get("model_type")) else "llama"


def _is_plain(settings: dict[str, Any], is_gated: bool, dropout: float) -> bool:
    """Say whether training/lean.py is written for a model of this kind."""
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


@cache
def _is_product(layer: str) -> bool:
    return not any(part in layer for part in (*_NO_PRODUCT, _WRITES_TOKENS))


def _count(weights: StoredWeights, is_tied: bool) -> int:
    """Add the tensors up. Some files hold shared ones twice."""
    again = f"{_WRITES_TOKENS}.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
    is_shared = is_tied and len(weights.shapes) > len(again)
    has_other = any(part in name for name in weights.shapes if name not in again for part in _NO_PRODUCT)
    return sum(prod(shape) for name, shape in weights.shapes.items() if not (is_shared and has_other and name in again))


def _adapter_parameters(adapter: Adapter, weights: StoredWeights, hidden: int) -> int:
    """Low-rank matrices of each changed layer, rank x (inputs + outputs) (Hu et al., arXiv 2106.09685), and DoRA's
    length of each output; or the vectors of a tuned prompt."""
    if isinstance(adapter, PromptTuning):
        return adapter.tokens * hidden
    changed = [name.removesuffix(".weight") for name in weights.shapes if _is_changed(name, adapter.targets)]
    shapes = [weights.shapes[f"{name}.weight"] for name in changed if len(weights.shapes[f"{name}.weight"]) == 2]
    lengths = sum(shape[0] for shape in shapes) if isinstance(adapter, Dora) else 0
    return adapter.rank * sum(map(sum, shapes)) + lengths


def _is_changed(name: str, targets: tuple[str, ...]) -> bool:
    layer = name.removesuffix(".weight")
    if layer == name:
        return False
    return any(f".{layer}".endswith(f".{target}") for target in targets) if targets else _is_product(layer)


def held_bits(model: ScratchModel | PretrainedModel) -> int | None:
    """Return in how many bits frozen weights are held; None: in the type that is computed in."""
    quantise = "none" if isinstance(model, ScratchModel) else model.quantise
    return {"none": None, "8bit": 8, "4bit": 4}[quantise]
