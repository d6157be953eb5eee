"""The layers of llama and t5 with their gradients written out by hand: attention, feed-forward, norm.

A small model on a CPU spends more time in elementwise operations, in casting weights and in passing tensors between
operations than in matrix products. A layer here is one node of the graph, with a few operations forward and backward
where automatic differentiation takes dozens. What is computed is the same: the stream of hidden states, norm statistics
and softmax in float32 (or wider), matrix products in `dtype`, the type that the caller computes in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

Hidden = Float[Tensor, "batch length size"]


@dataclass(frozen=True)
class Looking:
    """How a layer attends. epsilon: of its norm. added: to the scores, in the type of the softmax. first: the tokens
    from this one on are answered for, those before it only looked at. turns: complex numbers by which neighbouring
    pairs of the numbers of a query and of a key are multiplied: rotary positions (Su et al., arXiv 2104.09864), and the
    scale of the scores. Without them scores are not scaled, as in T5."""

    heads: int
    epsilon: float
    dtype: torch.dtype
    added: Float[Tensor, "batch_heads queries keys"]
    first: int = 0
    turns: Complex[Tensor, "... length 2 heads pairs"] | None = None


def attend(
    how: Looking,
    hidden: Hidden,
    weights: tuple[Tensor, ...],
    others: Hidden | None = None,
    bias: Float[Tensor, "heads queries keys"] | None = None,
) -> Hidden:
    """Return hidden[:, first:] + what multi-head attention (Vaswani et al., arXiv 1706.03762, section 3.2) makes of the
    normed hidden states, looking at themselves, or at `others`, which are in `dtype`.

    weights: of the norm, queries, keys, values and output. Those of rotary queries and keys are ordered as in
    transformers: what turns together stands half a head apart. bias: the part of `added` that learns; it is given for
    its gradient and not added again."""
    result: Tensor = _Attention.apply(how, hidden, others, bias, *weights)  # type: ignore[no-untyped-call]
    return result


def feed_forward(
    hidden: Hidden,
    norm: tuple[Float[Tensor, " size"], float],
    weights: tuple[Tensor, ...],
    dtype: torch.dtype,
) -> Hidden:
    """Return hidden + down(relu(up(x))), or hidden + down(silu(gate(x)) * up(x)) (Shazeer, arXiv 2002.05202) where
    there are three weights: x is hidden, normed with a weight and an epsilon; weights: gate if any, up, down."""
    result: Tensor = _FeedForward.apply(norm[1], dtype, hidden, norm[0], *weights)  # type: ignore[no-untyped-call]
    return result


def normed(hidden: Hidden, weight: Float[Tensor, " size"], epsilon: float, dtype: torch.dtype) -> Hidden:
    """Divide by the root mean square and multiply by the weight (Zhang and Sennrich, arXiv 1910.07467), in the type of
    `hidden`; the result is in `dtype`."""
    result: Tensor = _Norm.apply(hidden, weight, epsilon, dtype)  # type: ignore[no-untyped-call]
    return result


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        result, *saved = _norm(hidden, weight, epsilon, dtype)
        ctx.save_for_backward(*saved, weight)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *_norm_backward(gradient, *ctx.saved_tensors), None, None


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any, how: Looking, hidden: Tensor, others: Tensor | None, bias: Tensor | None, *weights: Tensor
    ) -> Tensor:
        norm, *projections, output = weights
        inputs, unweighted, scale = _norm(hidden, norm, how.epsilon, how.dtype)
        of_output = _in_pairs(output.t(), how).t()
        if others is None:
            of_both = None
            of_inputs = _in_pairs(torch.cat(projections), how)
            queries, keys, values = _to_heads(inputs @ of_inputs.t(), 3, how)
        else:
            of_inputs, of_both = projections[0].to(how.dtype), torch.cat(projections[1:]).to(how.dtype)
            (queries,) = _to_heads(inputs @ of_inputs.t(), 1, how)
            keys, values = _to_heads(others @ of_both.t(), 2, how)
        queries = queries[:, how.first :].contiguous()
        shares = torch.softmax(how.added + torch.bmm(queries, keys.transpose(1, 2)), -1)
        narrow = shares.to(how.dtype)
        result = _to_rows([torch.bmm(narrow, values)], how, len(hidden))
        ctx.how, ctx.has_bias = how, bias is not None
        ctx.save_for_backward(unweighted, scale, norm, inputs, others, of_inputs, of_both, of_output, result)
        ctx.by_head = queries, keys, values, shares, narrow
        return (result @ of_output.t()).to(hidden.dtype).add_(hidden[:, how.first :])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        how: Looking = ctx.how
        unweighted, scale, norm, inputs, others, of_inputs, of_both, of_output, result = ctx.saved_tensors
        narrow = gradient.to(how.dtype)
        to_output = _from_pairs(_weight_gradient(result, narrow), how).t()
        (to_result,) = _to_heads(narrow @ of_output, 1, how)
        to_scores, *to_projections = _attended_backward(to_result, how.first, *ctx.by_head)
        to_bias = to_scores.view(len(gradient), how.heads, *to_scores.shape[1:]).sum(0) if ctx.has_bias else None
        if others is None:
            to_rows, to_others = _to_rows(to_projections, how, len(inputs)), None
            to_weights = _from_pairs(_weight_gradient(to_rows, inputs), how).chunk(3)
        else:
            to_rows, to_both = (_to_rows(some, how, len(inputs)) for some in (to_projections[:1], to_projections[1:]))
            to_weights = _weight_gradient(to_rows, inputs), *_weight_gradient(to_both, others).chunk(2)
            to_others = to_both @ of_both
        to_hidden, to_norm = _norm_backward(to_rows @ of_inputs, unweighted, scale, norm)
        to_hidden[:, how.first :] += gradient
        return None, to_hidden, to_others, to_bias, to_norm, *to_weights, to_output


class _FeedForward(Function):
    @staticmethod
    def forward(ctx: Any, epsilon: float, dtype: torch.dtype, hidden: Tensor, norm: Tensor, *weights: Tensor) -> Tensor:
        inputs, unweighted, scale = _norm(hidden, norm, epsilon, dtype)
        *first, of_down = (weight.to(dtype) for weight in weights)
        of_up = torch.cat(first) if len(first) > 1 else first[0]
        between = inputs @ of_up.t()
        if len(first) > 1:
            gate, up = between.chunk(2, -1)
            open_gate = silu(gate)
            result = open_gate * up
        else:
            open_gate = result = between.relu_()
        ctx.save_for_backward(unweighted, scale, norm, inputs, of_up, of_down, between, open_gate, result)
        ctx.is_gated = len(first) > 1
        return (result @ of_down.t()).to(hidden.dtype).add_(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        unweighted, scale, norm, inputs, of_up, of_down, between, open_gate, result = ctx.saved_tensors
        narrow = gradient.to(inputs.dtype)
        to_down, to_result = _weight_gradient(narrow, result), narrow @ of_down
        if ctx.is_gated:
            (gate, up), to_between = between.chunk(2, -1), torch.empty_like(between)
            to_gate, to_up = to_between.chunk(2, -1)
            torch.mul(to_result, open_gate, out=to_up)
            torch.ops.aten.silu_backward.grad_input(to_result.mul_(up), gate, grad_input=to_gate)
        else:
            to_between = torch.ops.aten.threshold_backward(to_result, result, 0)
        to_first = _weight_gradient(to_between, inputs).chunk(2 if ctx.is_gated else 1)
        to_hidden, to_norm = _norm_backward(to_between @ of_up, unweighted, scale, norm)
        return None, None, to_hidden.add_(gradient), to_norm, *to_first, to_down


def _norm(hidden: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normed states, and for the way back those without the weight, and what they were multiplied by."""
    length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
    scale = length.square_().div_(hidden.shape[-1]).add_(epsilon).rsqrt_()
    unweighted = hidden * scale
    return (unweighted * weight).to(dtype), unweighted, scale


def _norm_backward(gradient: Tensor, unweighted: Tensor, scale: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    gradient = gradient.to(unweighted.dtype)
    to_weight = (gradient * unweighted).flatten(0, -2).sum(0)
    to_unweighted = gradient * weight
    along = torch.linalg.vecdot(to_unweighted, unweighted).div_(-unweighted.shape[-1]).unsqueeze(-1)
    return to_unweighted.addcmul_(unweighted, along).mul_(scale), to_weight


def _attended_backward(
    gradient: Tensor, first: int, queries: Tensor, keys: Tensor, values: Tensor, *both: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the scores, in float32, and of queries, keys and values, by head."""
    shares, narrow = both
    to_shares = torch.bmm(gradient, values.transpose(1, 2)).to(shares.dtype)
    to_scores = torch._softmax_backward_data(to_shares, shares, -1, shares.dtype)
    to_narrow = to_scores.to(narrow.dtype)
    to_queries = torch.nn.functional.pad(torch.bmm(to_narrow, keys), (0, 0, first, 0))
    to_keys = torch.bmm(to_narrow.transpose(1, 2), queries)
    return to_scores, to_queries, to_keys, torch.bmm(narrow.transpose(1, 2), gradient)


def _to_heads(rows: Tensor, parts: int, how: Looking) -> Tensor:
    """Batch x length x (parts x size) -> parts x (batch x heads) x length x width. Of three parts the first two,
    queries and keys, are turned."""
    batch, length, size = rows.shape
    rows = rows.view(batch, length, parts, how.heads, size // (parts * how.heads))
    heads = rows.new_empty(parts, batch, how.heads, length, rows.shape[-1])
    by_row = heads.permute(1, 3, 0, 2, 4)
    if how.turns is None or parts < 3:
        by_row.copy_(rows)
    else:
        by_row[:, :, :2].copy_(_turned(rows[:, :, :2], how.turns))
        by_row[:, :, 2].copy_(rows[:, :, 2])
    return heads.flatten(1, 2)


def _to_rows(parts: Sequence[Tensor], how: Looking, batch: int) -> Tensor:
    """The way back of `_to_heads`; three parts are gradients, and turned back."""
    length, width = parts[0].shape[1:]
    rows = parts[0].new_empty(batch, length, len(parts), how.heads, width)
    for index, part in enumerate(parts):
        rows[:, :, index].copy_(part.view(batch, how.heads, length, width).transpose(1, 2))
    if how.turns is not None and len(parts) == 3:
        rows[:, :, :2].copy_(_turned(rows[:, :, :2], how.turns.conj()))
    return rows.flatten(2)


def _turned(rows: Tensor, turns: Tensor) -> Tensor:
    """Multiply each pair of numbers, taken as a complex one."""
    wide = torch.empty(rows.shape, dtype=turns.real.dtype).copy_(rows)
    pairs = torch.view_as_complex(wide.view(*rows.shape[:-1], -1, 2))
    return torch.view_as_real(pairs.mul_(turns)).view(rows.shape)


def _in_pairs(weight: Tensor, how: Looking) -> Tensor:
    """Order a projection's outputs so that the two that rotary positions turn together are neighbours. All projections
    of a layer are ordered alike, so that products of queries and keys, and what the output makes of the values, stay
    the same."""
    if how.turns is None:
        return weight.to(how.dtype)
    apart = weight.reshape(-1, 2, how.turns.shape[-1], weight.shape[1]).transpose(1, 2)
    return apart.to(how.dtype, memory_format=torch.contiguous_format).reshape(weight.shape)


def _from_pairs(gradient: Tensor, how: Looking) -> Tensor:
    if how.turns is None:
        return gradient
    return gradient.view(-1, how.turns.shape[-1], 2, gradient.shape[1]).transpose(1, 2).reshape(gradient.shape)


def _weight_gradient(to_outputs: Tensor, inputs: Tensor) -> Tensor:
    return to_outputs.flatten(0, -2).t() @ inputs.flatten(0, -2)
