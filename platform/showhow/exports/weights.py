"""Writes the weights of an exported model: an adapter merged into its base, or the adapter alone."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from showhow.sections.recipe import ModelSpec, PretrainedModel
from showhow.sections.trial import Trial

_LARGEST_FILE = "5GB"  # as the hub recommends


def write_model(model: Any, trial: Trial, greedy: GenerationConfig, folder: Path, as_adapter: bool) -> torch.dtype:
    """Write a trained model with its settings, or its adapter alone. Return the type of the written weights."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # saving a model imports DeepSpeed, which would print warnings
    dtype = torch.float32
    if as_adapter:
        for settings in model.peft_config.values():
            base = Path(settings.base_model_name_or_path)
            settings.base_model_name_or_path = str(base.resolve() if base.is_dir() else base)
        greedy.save_pretrained(folder)
    else:
        model = model if trial.adapter is None else model.merge_and_unload()
        dtype = _type_for(model, trial.model)
        model = model.to(dtype)
        model.generation_config = greedy
    model.save_pretrained(folder, max_shard_size=_LARGEST_FILE)
    return dtype


def _type_for(model: torch.nn.Module, spec: ModelSpec) -> torch.dtype:
    """Return the type to write weights in: a pretrained base's, if it has 16 bits and all weights are in its range."""
    dtype = None
    if isinstance(spec, PretrainedModel):
        dtype = AutoConfig.from_pretrained(spec.name, trust_remote_code=False).dtype
    if dtype == torch.bfloat16:
        return torch.bfloat16
    largest = torch.finfo(torch.float16).max
    fits = dtype == torch.float16 and all(float(one.detach().abs().max()) <= largest for one in model.parameters())
    return torch.float16 if fits else torch.float32
