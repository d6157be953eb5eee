"""The layers of llama and t5 with hand-written gradients: attention, feed-forward, norm, cross-entropy.

A small model on a CPU spends more time in elementwise operations, in casting weights and in passing tensors between
operations than in matrix products. A layer here is one node of the graph: a few matrix products by torch, and the
compiled operations of native.py between them. The result is the same: the stream of hidden states, norm statistics and
softmax are in float32, matrix products in `dtype`, which is float32 or bfloat16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, pad

from showhow.training.batches import IGNORED
from showhow.training.cpu import native
from showhow.training.cpu.native import needed

Hidden = Float[Tensor, "batch length size"]

_LANES = 16  # of native.cpp: the length of a row of shares is a multiple of it


@dataclass(frozen=True)
class Looking:
    """How a layer attends.

    epsilon: of its norm. scale: of the scores. added: to the scores, in float32. is_causal: a token does not attend to
    later ones, whatever is added. first: the first token with a query; those before it are only keys and values. turns:
    rotary positions (Su et al., arXiv 2104.09864), by which numbers i and i + width / 2 of a query and of a key are
    multiplied as one complex number: the cosines for each number of a head, and the sines, negated in the first
    half."""

    heads: int
    epsilon: float
    dtype: torch.dtype
    scale: float = 1.0
    added: Float[Tensor, "#batch #heads queries keys"] | None = None
    is_causal: bool = False
    first: int = 0
    turns: Float[Tensor, "#batch length two width"] | None = None


def rotary_turns(angles: Float[Tensor, "*places pairs"]) -> Float[Tensor, "*places two width"]:
    """Return the cosines and sines of these angles in the format of Looking.turns."""
    cosines, sines = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cosines, cosines], -1), torch.cat([-sines, sines], -1)], dim=-2)


def attend(
    how: Looking,
    hidden: Hidden,
    weights: tuple[Tensor, ...],
    others: Hidden | None = None,
    bias: Float[Tensor, "heads queries keys"] | None = None,
    embedded: tuple[Float[Tensor, "vocabulary size"], Int64[Tensor, "batch length"]] | None = None,
) -> Hidden:
    """Return hidden[:, first:] + multi-head attention (Vaswani et al., arXiv 1706.03762, section 3.2) of the normed
    hidden states to themselves, or to `others`, which are in `dtype`.

    weights: of the norm, queries, keys, values and output. bias: the learned part of `added`; it is passed for its
    gradient and not added again. embedded: embeddings and tokens, where the hidden states are embedded tokens; the
    projections are then computed once for each symbol and looked up for its tokens."""
    symbols, tokens = (None, None) if embedded is None else embedded
    result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        how, hidden, symbols, tokens, others, bias, *weights
    )
    return result


def feed_forward(
    hidden: Hidden,
    norm: tuple[Float[Tensor, " size"], float],
    weights: tuple[Tensor, ...],
    dtype: torch.dtype,
) -> Hidden:
    """Return hidden + down(relu(up(x))), or with three weights hidden + down(silu(gate(x)) * up(x)) (Shazeer, arXiv
    2002.05202). x is hidden, normed with a weight and an epsilon; weights: gate if there is one, up, down."""
    result: Tensor = _FeedForward.apply(norm[1], dtype, hidden, norm[0], *weights)  # type: ignore[no-untyped-call]
    return result


def normed(hidden: Hidden, weight: Float[Tensor, " size"], epsilon: float, dtype: torch.dtype) -> Hidden:
    """Divide by the root mean square and multiply by the weight (Zhang and Sennrich, arXiv 1910.07467); the result is
    in `dtype`."""
    result: Tensor = _Norm.apply(hidden, weight, epsilon, dtype)  # type: ignore[no-untyped-call]
    return result


def cross_entropy(logits: Float[Tensor, "batch length vocabulary"], labels: Int64[Tensor, "batch length"]) -> Tensor:
    """Return the sum over all labels that are not IGNORED, in nats and float32."""
    result: Tensor = _CrossEntropy.apply(logits, labels)  # type: ignore[no-untyped-call]
    return result


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        result, scales = needed().norm(hidden, weight, epsilon, dtype)
        ctx.save_for_backward(hidden, weight, scales)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, scales = ctx.saved_tensors
        return *_norm_backward(gradient.contiguous(), hidden, weight, scales, None, 0), None, None


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        how: Looking,
        hidden: Tensor,
        symbols: Tensor | None,
        tokens: Tensor | None,
        *rest: Any,
    ) -> Tensor:
        others, bias, norm, *projections, output = rest
        source = hidden if symbols is None else symbols[None]
        inputs, scales = needed().norm(source, norm, how.epsilon, how.dtype)
        own = _joined(projections if others is None else projections[:1], how.dtype)
        of_others = None if others is None else _joined(projections[1:], how.dtype)
        rows = inputs @ own.t()
        if tokens is not None:
            rows = embedding(tokens, rows[0])
        seen = None if others is None or of_others is None else others @ of_others.t()
        shares, result = _attended(how, rows, seen)
        of_output = output.to(how.dtype)
        ctx.how, ctx.has_bias = how, bias is not None
        ctx.save_for_backward(source, tokens, norm, scales, inputs, others, own, of_others, of_output)
        ctx.attended = rows, seen, shares, result
        return needed().add(hidden[:, how.first :], result @ of_output.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, tokens, norm, scales, inputs, others, own, of_others, of_output = ctx.saved_tensors
        how, gradient, (rows, seen, shares, result) = ctx.how, gradient.contiguous(), ctx.attended
        narrow = gradient.to(how.dtype)
        to_output = _weight_gradient(narrow, result)
        to_rows, to_seen, to_bias = _attended_backward(how, narrow @ of_output, rows, seen, shares, ctx.has_bias)
        to_symbols = None
        if tokens is not None:
            to_rows = _gathered(to_rows, tokens, len(source[0]))
        to_weights = [*_weight_gradient(to_rows, inputs).chunk(3 if others is None else 1)]
        to_others = None
        if to_seen is not None:
            to_weights += _weight_gradient(to_seen, others).chunk(2)
            to_others = to_seen @ of_others
        passed = gradient if tokens is None else None
        to_hidden, to_norm = _norm_backward(to_rows @ own, source, norm, scales, passed, how.first)
        if tokens is not None:
            to_hidden, to_symbols = pad(gradient, (0, 0, how.first, 0)), to_hidden[0]
        return None, to_hidden, to_symbols, None, to_others, to_bias, to_norm, *to_weights, to_output


class _FeedForward(Function):
    @staticmethod
    def forward(ctx: Any, epsilon: float, dtype: torch.dtype, hidden: Tensor, norm: Tensor, *weights: Tensor) -> Tensor:
        inputs, scales = needed().norm(hidden, norm, epsilon, dtype)
        of_up, of_down = _joined(weights[:-1], dtype), weights[-1].to(dtype)
        between = inputs @ of_up.t()
        ctx.is_gated = len(weights) > 2
        result = needed().gate(between) if ctx.is_gated else between.relu_()
        ctx.save_for_backward(hidden, norm, scales, inputs, of_up, of_down, between, result)
        return needed().add(hidden, result @ of_down.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, norm, scales, inputs, of_up, of_down, between, result = ctx.saved_tensors
        narrow = gradient.to(inputs.dtype)
        to_result, size = narrow @ of_down, result.shape[-1]
        if ctx.is_gated:
            to_between = torch.empty_like(between)
            needed()("gate_backward", narrow.dtype, result.numel() // size, size, to_result, between, to_between)
        else:
            to_between = torch.ops.aten.threshold_backward(to_result, result, 0)
        to_first = _weight_gradient(to_between, inputs).chunk(2 if ctx.is_gated else 1)
        to_hidden, to_norm = _norm_backward(to_between @ of_up, hidden, norm, scales, gradient.contiguous(), 0)
        return None, None, to_hidden, to_norm, *to_first, _weight_gradient(narrow, result)


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        logits, labels = logits.contiguous(), labels.contiguous()
        losses = torch.empty(labels.shape, dtype=torch.float32)
        logs = torch.empty_like(losses)
        needed()("entropy", logits.dtype, labels.numel(), logits.shape[-1], logits, labels, IGNORED, losses, logs)
        ctx.save_for_backward(logits, labels, logs)
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, logs = ctx.saved_tensors
        result, scale = torch.empty_like(logits), float(gradient)
        sizes = labels.numel(), logits.shape[-1]
        needed()("entropy_backward", logits.dtype, *sizes, logits, labels, IGNORED, logs, scale, result)
        return result, None


def _norm_backward(
    gradient: Tensor, hidden: Tensor, weight: Tensor, scales: Tensor, passed: Tensor | None, first: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of hidden and of weight; `passed` is added to the former for the tokens from `first` on."""
    to_hidden, to_weight = torch.empty_like(hidden), torch.empty_like(weight)
    arguments = gradient, hidden, weight, scales, passed, to_hidden, to_weight
    needed()("norm_backward", gradient.dtype, *hidden.shape, first, *arguments)
    return to_hidden, to_weight


def _parts(rows: Tensor, seen: Tensor | None) -> tuple[Tensor, ...]:
    """Return queries, keys and values, which are concatenated in the last dimension."""
    return rows.chunk(3, -1) if seen is None else (rows, *seen.chunk(2, -1))


def _attended(how: Looking, rows: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the attention weights of each query, batch x heads x queries x keys (padded to a multiple of _LANES), and
    the weighted values, batch x queries x (heads x width)."""
    queries, keys, values = _parts(rows, seen)
    sizes = _sizes(how, queries, keys)
    shares = torch.empty(sizes.batch, sizes.heads, sizes.queries, -(-sizes.keys // _LANES) * _LANES)
    result = rows.new_empty(sizes.batch, sizes.queries, queries.shape[-1])
    needed()("attention", rows.dtype, sizes, queries, keys, values, shares, result)
    return shares, result


def _attended_backward(
    how: Looking, gradient: Tensor, rows: Tensor, seen: Tensor | None, shares: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of rows, of seen, and of the bias."""
    inputs = _parts(rows, seen)
    to_rows, to_seen = torch.empty_like(rows), None if seen is None else torch.empty_like(seen)
    sizes = _sizes(how, *inputs[:2])
    to_bias = torch.zeros(sizes.heads, sizes.queries, sizes.keys) if has_bias else None
    arguments = gradient, *inputs, shares, *_parts(to_rows, to_seen), to_bias
    needed()("attention_backward", rows.dtype, sizes, *arguments)
    return to_rows, to_seen, to_bias


def _gathered(rows: Tensor, tokens: Tensor, symbols: int) -> Tensor:
    """Return the sums of the rows of equal tokens."""
    sums, tokens = torch.zeros(1, symbols, rows.shape[-1]), tokens.contiguous()
    needed()("gathered", rows.dtype, tokens.numel(), rows.shape[-1], rows, tokens, sums)
    return sums.to(rows.dtype)


def _sizes(how: Looking, queries: Tensor, keys: Tensor) -> native.Looking:
    added, turns = how.added, how.turns
    return native.Looking(
        batch=len(queries),
        heads=how.heads,
        queries=queries.shape[1] - how.first,
        keys=keys.shape[1],
        width=queries.shape[2] // how.heads,
        first=how.first,
        is_causal=how.is_causal,
        query_stride=queries.stride(1),
        key_stride=keys.stride(1),
        scale=how.scale,
        turns=None if turns is None else turns.data_ptr(),
        turns_batch=0 if turns is None or len(turns) == 1 else turns.stride(0),
        added=None if added is None else added.data_ptr(),
        added_batch=0 if added is None or added.shape[0] == 1 else added.stride(0),
        added_head=0 if added is None or added.shape[1] == 1 else added.stride(1),
    )


def _joined(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([*weights]).to(dtype) if len(weights) > 1 else weights[0].to(dtype)


def _weight_gradient(to_outputs: Tensor, inputs: Tensor) -> Tensor:
    return to_outputs.flatten(0, -2).t() @ inputs.flatten(0, -2)
