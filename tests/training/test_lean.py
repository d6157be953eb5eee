"""Laws of the lean losses: the numbers of transformers' own models, for the models they are written for only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from showhow.sections.recipe import Recipe, ScratchModel
from showhow.tasks.base import Task
from showhow.training.batches import IGNORED, Batch, StepBatch, causal_batch, packed_batch, seq2seq_batch
from showhow.training.cpu import lean_logits, lean_loss
from showhow.training.engine import PlainEngine
from showhow.training.losses import response_loss
from showhow.training.model import build_model
from showhow.training.tokens import TokenFile

Files = Callable[..., TokenFile]
Recipes = Callable[..., Recipe]
Sizes = Callable[..., ScratchModel]
every_kind = pytest.mark.parametrize(
    ("architecture", "collate", "tied"),
    [
        ("llama", causal_batch, True),
        ("llama", causal_batch, False),
        ("llama", packed_batch, True),
        ("t5", seq2seq_batch, True),
    ],
)


def loss_of_transformers(model: Any, batch: Batch) -> torch.Tensor:
    """The summed cross-entropy of the logits that the model itself gives."""
    labels, inputs = batch["labels"], {name: tensor for name, tensor in batch.items() if name != "labels"}
    if model.config.is_encoder_decoder:
        logits = model(**batch, use_cache=False).logits
    else:
        logits, labels = model(**inputs, use_cache=False).logits[:, :-1], labels[:, 1:]
    return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def gradient(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def made(size: ScratchModel, file: TokenFile) -> torch.nn.Module:
    """A model whose norms are no ones, so that a mistake in them shows."""
    model = build_model(size, file.special, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@every_kind
@pytest.mark.parametrize("layers", [1, 3])
def test_loss_and_gradients_are_those_of_transformers(
    tokens: Files, varied: Task, sizes: Sizes, architecture: str, collate: Any, tied: bool, layers: int
) -> None:
    file = tokens(varied)
    model = made(sizes(architecture, tie_embeddings=tied, layers=layers), file)
    for rows in (np.arange(12), np.arange(1)):
        batch = collate(file, rows)
        ours, theirs = lean_loss(model, batch, torch.float32), loss_of_transformers(model, batch)
        assert ours is not None
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
        expected = gradient(model, theirs)
        assert float((gradient(model, ours) - expected).norm() / expected.norm()) < 1e-6


@every_kind
def test_bfloat16_rounds_no_worse_than_the_autocast_of_transformers(
    tokens: Files, varied: Task, sizes: Sizes, architecture: str, collate: Any, tied: bool
) -> None:
    file = tokens(varied)
    model: Any = made(sizes(architecture, tie_embeddings=tied), file)
    model.set_attn_implementation("eager")
    batch = collate(file, np.arange(12))
    exact = gradient(model, loss_of_transformers(model, batch))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = response_loss(model, batch), loss_of_transformers(model, batch)
    assert ours.item() == pytest.approx(theirs.item(), rel=2e-3)
    apart = [float((gradient(model, loss) - exact).norm() / exact.norm()) for loss in (ours, theirs)]
    assert apart[0] < 1.25 * apart[1]


def llama(**changes: Any) -> torch.nn.Module:
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**(sizes | heads | changes)))  # type: ignore[no-any-return]


def t5(**changes: Any) -> torch.nn.Module:
    sizes = {"vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    config = T5Config(**(sizes | {"dropout_rate": 0.0, "decoder_start_token_id": 0} | changes))
    return T5ForConditionalGeneration(config)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "model",
    [
        llama(num_key_value_heads=2),
        llama(attention_bias=True),
        llama(mlp_bias=True),
        llama(hidden_act="gelu"),
        llama(attention_dropout=0.1),
        llama(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
        t5(dropout_rate=0.1),
        t5(feed_forward_proj="gated-gelu"),
    ],
)
def test_models_it_is_not_written_for_keep_the_way_of_transformers(model: torch.nn.Module) -> None:
    assert lean_logits(model) is None


def test_models_of_transformers_with_usual_settings_are_among_those_it_is_written_for() -> None:
    assert lean_logits(llama()) is not None
    assert lean_logits(llama(head_dim=16)) is not None
    assert lean_logits(t5()) is not None


def test_heads_may_be_wider_than_their_share_of_the_model(tokens: Files) -> None:
    file = tokens()
    batch = causal_batch(file, np.arange(6))
    for model in (llama(head_dim=16), llama(rope_parameters={"rope_type": "default", "rope_theta": 30.0})):
        ours = lean_loss(model, batch, torch.float32)
        assert ours is not None
        assert ours.item() == pytest.approx(loss_of_transformers(model, batch).item(), rel=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_trained_model_is_saved_and_loads_as_the_transformers_model_it_is(
    tokens: Files, varied: Task, recipe: Recipes, sizes: Sizes, architecture: str, tmp_path: Path
) -> None:
    file = tokens(varied)
    model: Any = build_model(sizes(architecture), file.special, 0)
    names = set(model.state_dict())
    batch = (causal_batch if architecture == "llama" else seq2seq_batch)(file, np.arange(8))
    PlainEngine(model, recipe()).step(StepBatch([batch], 0, 1), 1e-3)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert set(again.state_dict()) == names
    with torch.no_grad():
        expected = loss_of_transformers(again, batch).item()
        assert response_loss(model, batch).item() == pytest.approx(expected, rel=1e-6)
