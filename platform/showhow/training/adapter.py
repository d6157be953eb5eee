"""Adapters: small trained parts of a pretrained model whose own weights are frozen, made by `peft`, which is imported
only where a trial has an adapter. Also returns transformers' own model without its adapter, for code that calls it."""

import sys
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from showhow.errors import TrialError
from showhow.models.settings import no_such_layer
from showhow.sections.adapter import Adapter, Dora, PromptTuning, RsLora
from showhow.seeds import seed_for

# peft 0.21 reads it by its name in transformers 4, and transformers 5 warns of that.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)


def with_adapter(model: Any, adapter: Adapter, seed: int) -> torch.nn.Module:
    """Return the model with frozen weights and an adapter in float32, a function of the seed.

    Raises TrialError when the adapter names a layer that the model does not have, or that cannot be adapted."""
    from peft import get_peft_model

    config = _prompt_config(model, adapter) if isinstance(adapter, PromptTuning) else _low_rank_config(model, adapter)
    torch.manual_seed(seed_for("adapter", seed))
    try:
        adapted: torch.nn.Module = get_peft_model(model, config)
    except ValueError as error:  # raised by peft for layers that it cannot change
        raise TrialError(f'this model takes no adapter of kind "{adapter.kind}": {error}') from None
    return adapted


def is_adapted(model: torch.nn.Module) -> bool:
    """True for a model with an adapter."""
    peft = sys.modules.get("peft")  # if peft is not imported, no model has an adapter
    return peft is not None and isinstance(model, peft.PeftModel)


def bare(model: Any) -> Any:
    """Return transformers' own model without the wrapper of an adapter; low-rank matrices remain in its layers."""
    return model.get_base_model() if is_adapted(model) else model


def tuned_prompt(model: Any) -> Float[Tensor, "one tokens hidden"] | None:
    """Return the vectors that prompt tuning puts before every question; None for models without."""
    if not is_adapted(model) or not model.active_peft_config.is_prompt_learning:
        return None
    prompt: Tensor = model.get_prompt(1)
    return prompt


def _task_of(model: Any) -> str:
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def _prompt_config(model: Any, adapter: PromptTuning) -> Any:
    from peft import PromptTuningConfig

    return PromptTuningConfig(
        task_type=_task_of(model),
        num_virtual_tokens=adapter.tokens,
        # Only the encoder reads them, not the decoder. They are initialised with tokens of the vocabulary, which is
        # better than noise of another scale than the embeddings (arXiv 2104.08691, section 2.1 and figure 3b).
        num_transformer_submodules=1,
        prompt_tuning_init="SAMPLE_VOCAB",
    )


def _low_rank_config(model: Any, adapter: Any) -> Any:
    from peft import LoraConfig

    kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D)  # as peft does; partitioned weights have no shape here
    layers = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    for target in adapter.targets:
        if not any(f".{layer}".endswith(f".{target}") for layer in layers):
            names = sorted({layer.rpartition(".")[2] for layer in layers})
            raise TrialError(f'adapter.targets: "{target}" {no_such_layer(target, names)}')
    return LoraConfig(
        task_type=_task_of(model),
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=list(adapter.targets) or "all-linear",
        use_dora=isinstance(adapter, Dora),
        use_rslora=isinstance(adapter, RsLora),
    )
