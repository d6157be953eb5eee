"""The loss of llama and t5 models on a CPU in few operations: what `transformers` computes, without its detours.

A model stays what it is, a transformers model with its parameters; only the way from a batch to its loss is written
again, over those same parameters, and is compared with transformers' own in the tests. What is left out changes no
loss: logits of tokens that have no label, all of the last layer that only such tokens need, masks of padding that a
causal model never looks at.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

from showhow.training.batches import IGNORED, Batch
from showhow.training.kernels import Hidden, Looking, attend, feed_forward, normed

# Added to the score of a key that must not be seen.
_NEVER = torch.finfo(torch.float32).min

Loss = Callable[[Any, Batch, torch.dtype], Tensor]


def lean_loss(model: torch.nn.Module) -> Loss | None:
    """Return the function that gives the summed cross-entropy (nats) over a batch's labels, its matrix products in a
    given type; None for models that it is not written for (with adapters, or that are to recompute activations), and on
    GPUs, where transformers' own attention is fast."""
    if next(model.parameters()).device.type != "cpu":
        return None
    if type(model) is LlamaForCausalLM and _is_plain_llama(model):
        return llama_loss
    if type(model) is T5ForConditionalGeneration and _is_plain_t5(model):
        return t5_loss
    return None


def _is_plain_llama(model: Any) -> bool:
    settings = model.config
    return bool(
        not model.is_activation_checkpointing
        and settings.num_key_value_heads == settings.num_attention_heads
        and settings.rope_parameters["rope_type"] == "default"
        and settings.hidden_act == "silu"
        and settings.attention_dropout == 0.0
        and not (settings.attention_bias or settings.mlp_bias)
    )


def _is_plain_t5(model: Any) -> bool:
    settings = model.config
    is_plain = settings.feed_forward_proj == "relu" and settings.dropout_rate == 0.0
    return bool(is_plain and not model.is_activation_checkpointing)


def llama_loss(model: LlamaForCausalLM, batch: Batch, dtype: torch.dtype) -> Tensor:
    """See `lean_loss`. Padding must stand on the right, where a causal model never looks at it; a mask of four
    dimensions (packed examples) is added to the scores."""
    # The last token predicts nothing, and in the last layer only tokens before a label are worth a row.
    tokens, labels = batch["input_ids"][:, :-1], batch["labels"][:, 1:]
    first = int((labels != IGNORED).any(0).int().argmax())
    body, heads = model.model, model.config.num_attention_heads
    mask = batch.get("attention_mask")
    if mask is not None and mask.ndim == 4:
        added = mask[:, :, :-1, :-1].expand(-1, heads, -1, -1).flatten(0, 1)
    else:
        added = torch.full((1, tokens.shape[1], tokens.shape[1]), _NEVER).triu(1)
    positions = batch["position_ids"][:, :-1] if "position_ids" in batch else torch.arange(tokens.shape[1])
    angles = positions.unsqueeze(-1) * body.rotary_emb.inv_freq
    turns = torch.polar(torch.ones_like(angles), angles)[..., None, None, :].repeat_interleave(heads, -2)
    turns = torch.cat([turns * body.layers[0].self_attn.scaling, turns], dim=-3)
    hidden = body.embed_tokens(tokens)
    for layer in body.layers:
        begin = first if layer is body.layers[-1] else 0
        norm = layer.input_layernorm
        how = Looking(heads, norm.variance_epsilon, dtype, added[:, begin:], begin, turns)
        part: Any = layer.self_attn
        projections = [part.q_proj, part.k_proj, part.v_proj, part.o_proj]
        hidden = attend(how, hidden, (norm.weight, *(one.weight for one in projections)))
        norm, part = layer.post_attention_layernorm, layer.mlp
        weights = (part.gate_proj.weight, part.up_proj.weight, part.down_proj.weight)
        hidden = feed_forward(hidden, (norm.weight, norm.variance_epsilon), weights, dtype)
    outputs = normed(hidden, body.norm.weight, body.norm.variance_epsilon, dtype)
    return _cross_entropy(outputs, model.lm_head.weight, labels[:, first:])


def t5_loss(model: T5ForConditionalGeneration, batch: Batch, dtype: torch.dtype) -> Tensor:
    """See `lean_loss`."""
    labels = batch["labels"]
    visible = batch["attention_mask"].bool()[:, None, None]
    encoded = _t5_stack(model.encoder, model.shared(batch["input_ids"]), visible, None, dtype)
    before = model.shared(model.prepare_decoder_input_ids_from_labels(labels))
    causal = torch.ones(labels.shape[1], labels.shape[1], dtype=torch.bool).tril()
    outputs = _t5_stack(model.decoder, before, causal, (encoded, visible), dtype)
    if model.config.scale_decoder_outputs:
        outputs = outputs * model.model_dim**-0.5
    return _cross_entropy(outputs, model.lm_head.weight, labels)


def _t5_stack(
    stack: Any,
    hidden: Hidden,
    visible: Bool[Tensor, "batch 1 length length"],
    encoded: tuple[Hidden, Bool[Tensor, "batch 1 1 keys"]] | None,
    dtype: torch.dtype,
) -> Hidden:
    """Return the normed outputs of an encoder, or of a decoder that also looks at what was `encoded`."""
    batch, length = hidden.shape[:2]
    first, epsilon = stack.block[0].layer[0].SelfAttention, stack.final_layer_norm.variance_epsilon
    bias = first.compute_bias(length, length)[0]
    at_itself = Looking(first.n_heads, epsilon, dtype, _masked(bias.detach(), visible, batch))
    if encoded is not None:
        seen = _masked(torch.zeros(first.n_heads, 1, 1), encoded[1], batch)
        at_encoded = Looking(first.n_heads, epsilon, dtype, seen)
    for block in stack.block:
        weights = _t5_weights(block.layer[0], block.layer[0].SelfAttention)
        hidden = attend(at_itself, hidden, weights, bias=bias)
        if encoded is not None:
            weights = _t5_weights(block.layer[1], block.layer[1].EncDecAttention)
            hidden = attend(at_encoded, hidden, weights, others=encoded[0])
        norm, part = block.layer[-1].layer_norm, block.layer[-1].DenseReluDense
        hidden = feed_forward(hidden, (norm.weight, epsilon), (part.wi.weight, part.wo.weight), dtype)
    return normed(hidden, stack.final_layer_norm.weight, epsilon, dtype)


def _t5_weights(layer: Any, part: Any) -> tuple[Tensor, ...]:
    return layer.layer_norm.weight, part.q.weight, part.k.weight, part.v.weight, part.o.weight


def _masked(
    bias: Float[Tensor, "heads queries keys"],
    visible: Bool[Tensor, "batch 1 queries keys"],
    batch: int,
) -> Float[Tensor, "batch_heads queries keys"]:
    """Return the bias, and where a key must not be seen a number so small that it has no share."""
    return torch.where(visible, bias, _NEVER).expand(batch, -1, -1, -1).flatten(0, 1)


def _cross_entropy(
    outputs: Hidden, weight: Float[Tensor, "vocabulary size"], labels: Int64[Tensor, "batch length"]
) -> Tensor:
    logits = linear(outputs, weight.to(outputs.dtype))
    wide = torch.promote_types(logits.dtype, torch.float32)
    return cross_entropy(logits.to(wide).flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
