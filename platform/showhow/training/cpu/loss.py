"""The loss of llama and t5 models on a CPU in few operations: the loss of `transformers`, with less overhead.

The model remains a transformers model with its parameters; only the computation from a batch to its loss is implemented
again, with the same parameters, and the tests compare it with transformers' own. What is left out changes no loss: the
logits of tokens without a label, the part of the last layer that only such tokens need, and the mask of padding that a
causal model never attends to.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn.functional import linear
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

from showhow.training.batches import IGNORED, Batch
from showhow.training.cpu import native
from showhow.training.cpu.kernels import Hidden, Looking, attend, cross_entropy, feed_forward, normed, rotary_turns

# Added to the score of a key that is masked.
_NEVER = torch.finfo(torch.float32).min

LabelledLogits = tuple[Tensor, Int64[Tensor, "batch length"]]
Logits = Callable[[Any, Batch, torch.dtype], LabelledLogits]


def lean_loss(model: torch.nn.Module, batch: Batch, dtype: torch.dtype) -> Tensor | None:
    """Return the summed cross-entropy (nats) over a batch's labels, with matrix products in `dtype`; None where
    `lean_logits` returns None."""
    logits = lean_logits(model, dtype)
    if logits is None:
        return None
    with torch.autocast("cpu", enabled=False):
        return cross_entropy(*logits(model, batch, dtype))


def lean_logits(model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> Logits | None:
    """Return the function that computes a batch's logits, batch x length x vocabulary, and their labels, for the
    columns from the first one in which any row has a label. Matrix products are in `dtype`, and autocast must be off.

    None for models that it does not support (with adapters or recomputed activations), where there is no compiler for
    its operations, and on GPUs, where transformers' own attention is fast."""
    one = next(model.parameters())
    if one.device.type != "cpu" or one.dtype != torch.float32 or not native.can_compute(dtype):
        return None
    if type(model) is LlamaForCausalLM and _is_plain_llama(model):
        return llama_logits
    if type(model) is T5ForConditionalGeneration and _is_plain_t5(model):
        return t5_logits
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


def llama_logits(model: LlamaForCausalLM, batch: Batch, dtype: torch.dtype) -> LabelledLogits:
    """See `lean_logits`. Padding must be on the right, where a causal model never attends to it; a mask of four
    dimensions (packed examples) is added to the scores."""
    # The last token predicts nothing, and the last layer needs rows only for tokens before a label.
    tokens, labels = batch["input_ids"][:, :-1].contiguous(), batch["labels"][:, 1:]
    first = int((labels != IGNORED).any(0).int().argmax())
    body, heads = model.model, model.config.num_attention_heads
    mask = batch.get("attention_mask")
    added = mask[:, :, :-1, :-1] if mask is not None and mask.ndim == 4 else None
    positions = batch["position_ids"][:, :-1] if "position_ids" in batch else torch.arange(tokens.shape[1])[None]
    angles = positions.unsqueeze(-1) * body.rotary_emb.inv_freq
    turns = rotary_turns(angles)
    hidden, embedded = _embedded(body.embed_tokens, tokens)
    for layer in body.layers:
        begin = first if layer is body.layers[-1] else 0
        norm = layer.input_layernorm
        part: Any = layer.self_attn
        below = None if added is None else added[:, :, begin:].contiguous()
        how = Looking(heads, norm.variance_epsilon, dtype, part.scaling, below, True, begin, turns)
        projections = [part.q_proj, part.k_proj, part.v_proj, part.o_proj]
        weights = (norm.weight, *(one.weight for one in projections))
        hidden = attend(how, hidden, weights, embedded=embedded)
        embedded = None
        norm, part = layer.post_attention_layernorm, layer.mlp
        weights = (part.gate_proj.weight, part.up_proj.weight, part.down_proj.weight)
        hidden = feed_forward(hidden, (norm.weight, norm.variance_epsilon), weights, dtype)
    outputs = normed(hidden, body.norm.weight, body.norm.variance_epsilon, dtype)
    return linear(outputs, model.lm_head.weight.to(dtype)), labels[:, first:]


def t5_logits(model: T5ForConditionalGeneration, batch: Batch, dtype: torch.dtype) -> LabelledLogits:
    """See `lean_logits`."""
    labels = batch["labels"]
    visible = batch["attention_mask"].bool()[:, None, None]
    encoded = _t5_stack(model.encoder, batch["input_ids"], visible, None, dtype)
    before = model.prepare_decoder_input_ids_from_labels(labels)
    outputs = _t5_stack(model.decoder, before, None, (encoded, visible), dtype)
    if model.config.scale_decoder_outputs:
        outputs = outputs * model.model_dim**-0.5
    return linear(outputs, model.lm_head.weight.to(dtype)), labels


def t5_encoded(model: Any, tokens: Int64[Tensor, "batch length"], mask: Tensor, dtype: torch.dtype) -> Hidden:
    """Return the output of a T5's encoder, by transformers' own code where the model is not an original T5."""
    if model.config.feed_forward_proj == "relu" and model.dtype == torch.float32:
        with torch.autocast("cpu", enabled=False):
            return _t5_stack(model.encoder, tokens, mask.bool()[:, None, None], None, dtype)
    return model.get_encoder()(input_ids=tokens, attention_mask=mask).last_hidden_state  # type: ignore[no-any-return]


def _t5_stack(
    stack: Any,
    tokens: Int64[Tensor, "batch length"],
    visible: Bool[Tensor, "batch 1 1 length"] | None,
    encoded: tuple[Hidden, Bool[Tensor, "batch 1 1 keys"]] | None,
    dtype: torch.dtype,
) -> Hidden:
    """Return the normed outputs of an encoder, or of a causal decoder that also attends to `encoded`."""
    length = tokens.shape[1]
    hidden, embedded = _embedded(stack.embed_tokens, tokens)
    first, epsilon = stack.block[0].layer[0].SelfAttention, stack.final_layer_norm.variance_epsilon
    bias = first.compute_bias(length, length)[0]
    added = bias.detach()[None] if visible is None else torch.where(visible, bias.detach(), _NEVER)
    to_itself = Looking(first.n_heads, epsilon, dtype, added=added.contiguous(), is_causal=visible is None)
    if encoded is not None:
        seen = torch.where(encoded[1], 0.0, _NEVER).expand(-1, -1, length, -1).contiguous()
        to_encoded = Looking(first.n_heads, epsilon, dtype, added=seen)
    for block in stack.block:
        weights = _t5_weights(block.layer[0], block.layer[0].SelfAttention)
        hidden = attend(to_itself, hidden, weights, bias=bias, embedded=embedded)
        embedded = None
        if encoded is not None:
            weights = _t5_weights(block.layer[1], block.layer[1].EncDecAttention)
            hidden = attend(to_encoded, hidden, weights, others=encoded[0])
        norm, part = block.layer[-1].layer_norm, block.layer[-1].DenseReluDense
        hidden = feed_forward(hidden, (norm.weight, epsilon), (part.wi.weight, part.wo.weight), dtype)
    return normed(hidden, stack.final_layer_norm.weight, epsilon, dtype)


def _embedded(embeddings: torch.nn.Embedding, tokens: Int64[Tensor, "batch length"]) -> tuple[Hidden, Any]:
    """Return hidden states, and embeddings and tokens where there are fewer symbols than tokens (see `attend`)."""
    weight = embeddings.weight
    return embeddings(tokens), (weight, tokens) if len(weight) < tokens.numel() else None


def _t5_weights(layer: Any, part: Any) -> tuple[Tensor, ...]:
    return layer.layer_norm.weight, part.q.weight, part.k.weight, part.v.weight, part.o.weight
