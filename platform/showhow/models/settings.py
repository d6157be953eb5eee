"""Why a trial cannot train the model it names, found before any process starts: from the study and, for a model in a
local folder, from its JSON files and the headers of its weights. Pure; no weight is read.

Faults that need the model itself, or the hub, are found by `training/model.py` when the model is loaded.
"""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from math import ceil, isfinite
from pathlib import Path
from typing import Any, Literal

from showhow.errors import UserError, nearest
from showhow.models.chat import chat_of
from showhow.models.folders import json_in, of_text
from showhow.models.weights import read_weights
from showhow.sections.adapter import Adapter, Dora, PromptTuning
from showhow.sections.faults import Fault
from showhow.sections.recipe import PretrainedModel, ScratchModel
from showhow.sections.trial import Trial

# `name` or `owner/name`, as the hub allows them.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# These have relative positions, so the bound in their configuration has no effect (T5's says 512).
_WITHOUT_BOUND = ("t5", "mt5", "umt5", "longt5", "switch_transformers", "bloom", "mpt")
_BOUNDS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
_SAVE = "from transformers import {0}; {0}.from_pretrained(FOLDER).save_pretrained(FOLDER)"


def model_faults(trial: Trial, gpus_per_device: float) -> list[Fault]:
    """Return why a trial's model cannot be trained as the trial says: its adapter, precision, quantisation, and what is
    missing in its folder. For a model that is not a local folder only the first three are known."""
    return list(_model_faults(trial, gpus_per_device))


def folder_faults(trial: Trial, folder: Path) -> list[Fault]:
    """Return why a trial is not compatible with the settings and the tokenizer in a model's folder."""
    return list(_settings_faults(trial, folder))


def longest_row(trial: Trial, folder: Path) -> int | None:
    """Return how many tokens a question with its target may have: the positions of the model in a folder, less those
    that prompt tuning takes. None where positions are relative, or the folder has no configuration."""
    settings = json_in(folder / "config.json")
    return None if settings is None else _room(trial, settings)


def positions_of(settings: dict[str, Any]) -> int | None:
    """Return the number of positions in a model's configuration; None where they are relative.

    Rotary positions that are scaled by a factor (arXiv 2306.15595, 2309.00071) reach further than the positions of
    the pretraining, which only some configurations give."""
    settings = of_text(settings)
    if settings.get("model_type") in _WITHOUT_BOUND:
        return None
    bound: int | None = next((settings[name] for name in _BOUNDS if isinstance(settings.get(name), int)), None)
    rotary = settings.get("rope_parameters") or settings.get("rope_scaling")
    if bound is None or not isinstance(rotary, dict):
        return bound
    factor = rotary.get("factor")
    if not isinstance(factor, int | float) or not isfinite(factor):
        return bound
    named = "original_max_position_embeddings"
    original = rotary.get(named, settings.get(named))
    return max(bound, ceil(factor * (original if isinstance(original, int) else bound)))


def _model_faults(trial: Trial, gpus_per_device: float) -> Iterator[Fault]:
    if trial.recipe.precision == "float16" and not gpus_per_device:
        yield Fault(
            "recipe.precision",
            'got "float16", in which CPUs do not train; write "bfloat16", "float32" or "auto", or give the trials GPUs '
            "(resources.gpus_per_device)",
        )
    if isinstance(trial.model, ScratchModel):
        if trial.adapter is not None:
            yield Fault(
                "adapter",
                "is trained with pretrained weights, and a scratch model has none; remove the section, or write "
                'kind = "pretrained" in [model]',
            )
        return
    if trial.recipe.batching == "packed" and isinstance(trial.adapter, PromptTuning):
        yield Fault(
            "recipe.batching",
            'got "packed", but the vectors of prompt tuning precede every question, so several cannot share a '
            'row; write "grouped"',
        )
    yield from _quantise_faults(trial.model, trial.adapter, gpus_per_device)
    folder = Path(trial.model.name)
    if folder.is_dir():
        yield from _settings_faults(trial, folder)
        yield from _weights_faults(trial, folder)
    elif folder.exists():
        yield Fault("model.name", f'"{folder}" is a file; a model is a folder, or a name on the Hugging Face hub')
    elif not _HUB_NAME.fullmatch(trial.model.name):
        hint = nearest(str(folder), (str(path) for path in folder.parent.glob("*/")))
        yield Fault("model.name", f'there is no folder "{folder}".{hint} A name on the hub is like "owner/model"')


def _quantise_faults(model: PretrainedModel, adapter: Adapter | None, gpus_per_device: float) -> Iterator[Fault]:
    if model.quantise == "none":
        return
    got = f'got "{model.quantise}"'
    if adapter is None:
        yield Fault("model.quantise", f"{got}, but quantised weights cannot be trained; add an [adapter] section")
    if isinstance(adapter, Dora) and model.quantise == "8bit":
        # The first step fails: bitsandbytes 0.50 has lost the weights' scale after peft 0.21 has read their length.
        yield Fault("model.quantise", f'{got}, which does not work with DoRA; write "4bit", or another adapter')
    if not gpus_per_device:
        yield Fault("model.quantise", f"{got}, which needs GPUs; set resources.gpus_per_device, or leave it out")
    elif find_spec("bitsandbytes") is None:
        yield Fault("model.quantise", f"{got}, which needs bitsandbytes: pip install showhow[quantised]")


def _settings_faults(trial: Trial, folder: Path) -> Iterator[Fault]:
    settings, tokens = json_in(folder / "config.json"), json_in(folder / "tokenizer.json")
    if settings is None:
        yield Fault("model.name", f'"{folder}" is not a model: it has no readable config.json.{_adapter_only(folder)}')
    if tokens is None or json_in(folder / "tokenizer_config.json") is None:
        yield Fault(
            "model.name",
            f'"{folder}" lacks a readable tokenizer.json or tokenizer_config.json; copy them from where the model '
            f"comes from, or make them from older files: {_SAVE.format('AutoTokenizer')}",
        )
    elif isinstance(trial.model, PretrainedModel):
        yield from _question_faults(trial.model.questions, folder)
    if settings is not None:
        yield from _position_faults(trial, settings)
        yield from _kind_faults(trial, settings, folder)
        if trial.adapter is not None and tokens is not None:
            yield from _vocabulary_faults(settings, tokens, folder)


def _position_faults(trial: Trial, settings: dict[str, Any]) -> Iterator[Fault]:
    most, room = trial.data.max_tokens, _room(trial, settings)
    if room is None or most <= room:
        return
    before = _tuned_tokens(trial)
    taken = f", of which adapter.tokens take {before:,}" if before else ""
    do = f"write {room:,} or less" if room > 0 else "tune fewer tokens"
    yield Fault("data.max_tokens", f"got {most:,}, but the model has {room + before:,} positions{taken}; {do}")


def _room(trial: Trial, settings: dict[str, Any]) -> int | None:
    positions = positions_of(settings)
    return None if positions is None else positions - _tuned_tokens(trial)


def _tuned_tokens(trial: Trial) -> int:
    return trial.adapter.tokens if isinstance(trial.adapter, PromptTuning) else 0


def _question_faults(questions: Literal["auto", "plain", "chat"], folder: Path) -> Iterator[Fault]:
    try:
        chat_of(folder, questions)
    except UserError as error:
        yield Fault("model.questions", str(error))


def _kind_faults(trial: Trial, settings: dict[str, Any], folder: Path) -> Iterator[Fault]:
    if trial.recipe.batching == "packed" and settings.get("is_encoder_decoder"):
        kind = settings.get("model_type")
        yield Fault("recipe.batching", f'"packed" is for causal models, and {kind} is none; write "grouped"')
    quantised = settings.get("quantization_config")
    if isinstance(quantised, dict):
        method = quantised.get("quant_method", "unknown method")
        yield Fault(
            "model.name",
            f'"{folder}" contains quantised weights already ({method}), which cannot be fine-tuned here; take the '
            'original model, and quantise = "4bit" or "8bit"',
        )


def _vocabulary_faults(settings: dict[str, Any], tokens: dict[str, Any], folder: Path) -> Iterator[Fault]:
    known, found = of_text(settings).get("vocab_size"), _token_count(tokens)
    if isinstance(known, int) and found > known:
        yield Fault(
            "adapter",
            f'the tokenizer of "{folder}" has {found:,} tokens and the model {known:,}; new ones cannot be learnt '
            "while the model's own weights are frozen: remove them, or train without an adapter",
        )


def _token_count(tokens: dict[str, Any]) -> int:
    """Return how many tokens a tokenizer.json has; 0 where its format is unknown."""
    try:
        added = [int(token["id"]) for token in tokens.get("added_tokens") or ()]
        return max(len(tokens["model"]["vocab"]), 1 + max(added, default=0))
    except (KeyError, TypeError, ValueError):
        return 0


def _weights_faults(trial: Trial, folder: Path) -> Iterator[Fault]:
    weights = read_weights(folder)
    if isinstance(weights, str):
        yield Fault("model.name", f'"{folder}" {weights}')
    elif trial.adapter is not None and not isinstance(trial.adapter, PromptTuning):
        for target in trial.adapter.targets:
            if not weights.has_layer(target):
                yield Fault("adapter.targets", f'"{target}" {no_such_layer(target, weights.linear_layers)}')


def no_such_layer(target: str, layers: list[str]) -> str:
    """Return the message for an adapter's target that the model does not have."""
    return f"is no layer of the model.{nearest(target, layers)} Linear layers: {', '.join(layers)}"


def _adapter_only(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return " It contains an adapter; merge it into its model, and name the folder of the result"
    return " Copy the complete folder from where the model comes from"
