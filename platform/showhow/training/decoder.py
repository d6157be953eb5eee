"""What writes replies: the protocol of a decoder, and the arithmetic that the lean ones share.

A lean decoder reads the weights of a transformers model once and then takes one token a row with as few operations as
there are: on a small model, the mask, the output objects, the copies of grown caches and the casts that transformers
makes in each step cost more than the matrix products (docs/performance.md).
"""

from typing import Any, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import linear

# Up to so many token ids, what the first layer makes of each is worked out once and then looked up: before attention
# a token's place plays no part. A seventh of a two-layer llama's arithmetic.
TABLE_VOCABULARY = 512

_STRIDE = 16
# torch gives smaller products of a batch not to the BLAS but to a loop of its own: 636 microseconds with the values of
# 24 tokens, 115 with those of 28, in the case below.
_LEAST_PRODUCT = 400


class Decoder(Protocol):
    """Reads the prompts of a batch, then takes one token a row after another. Computes where the model is, in
    autocast's type if it is on, else in the model's own."""

    device: torch.device
    pads_on_the_left: bool

    def begin(
        self, tokens: Int64[Tensor, "batch prompt"], mask: Int64[Tensor, "batch prompt"]
    ) -> Float[Tensor, "batch vocabulary"]:
        """Forget the last batch, read prompts (mask is 0 on padding), and return the logits of what follows."""

    def advance(self, following: Int64[Tensor, " batch"]) -> Float[Tensor, "batch vocabulary"]:
        """Take the next token of every row and return the logits of the one after it."""

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Forget all rows of the batch but these."""


class AttentionCache:
    """Keys and values of all layers of a batch, in float32: the products of one query a row are bound by calls and
    memory, not arithmetic, and on a CPU 2-3 times slower in bfloat16.

    There is room for a multiple of `_STRIDE` tokens and all of it is read, the bias hiding what is not yet written:
    smaller products and odd softmaxes are slower, not faster, and so are reads with gaps (1.04 and 1.83 against 0.55
    and 0.50 microseconds a row for the products with keys and values: 200 rows, 8 heads of 16, 32 tokens)."""

    def __init__(self, layers: int) -> None:
        self._layers: list[Float[Tensor, "two batch heads places width"]] = [torch.empty(0)] * layers

    def extend(
        self, layer: int, start: int, new: Float[Tensor, "batch new two heads width"]
    ) -> Float[Tensor, "two batch heads places width"]:
        """Write keys and values from token `start` on; return all there are, and the room after them. A layer's first
        call, with start 0, makes the room."""
        rows, tokens, two, heads, width = new.shape
        end = start + tokens
        places = places_for(end, width)
        if start == 0:
            self._layers[layer] = new.new_zeros(two, rows, heads, places, width)
        elif places > (before := self._layers[layer]).shape[3]:
            room = new.new_zeros(two, rows, heads, places - before.shape[3], width)
            self._layers[layer] = torch.cat([before, room], dim=3)
        self._layers[layer][:, :, :, start:end] = new.permute(2, 0, 3, 1, 4)
        return self._layers[layer]

    def read(self, layer: int) -> Float[Tensor, "two batch heads places width"]:
        """Return what `extend` returned last."""
        return self._layers[layer]

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Forget all rows but these."""
        self._layers = [both[:, rows] for both in self._layers]


def places_for(tokens: int, width: int) -> int:
    """Return the room that AttentionCache has for so many tokens, with heads of so many numbers."""
    return -(-max(tokens, _LEAST_PRODUCT // width) // _STRIDE) * _STRIDE


def attend(
    query: Float[Tensor, "batch new heads width"],
    keys_values: Float[Tensor, "two batch key_heads places width"],
    bias: Float[Tensor, "#batch #heads new places"],
) -> Float[Tensor, "batch_by_new heads_by_width"]:
    """Return softmax(query x keys + bias) x values. There may be fewer heads of keys than of queries, each then serving
    several (grouped queries, arXiv 2305.13245)."""
    batch, new, heads, width = query.shape
    keys, values = keys_values.flatten(1, 2)
    scores = torch.bmm(query.transpose(1, 2).reshape(len(keys), -1, width), keys.mT)
    scores.view(batch, heads, new, -1).add_(bias)
    mixed = torch.bmm(scores.softmax(-1), values)
    return mixed.view(batch, heads, new, width).transpose(1, 2).reshape(batch * new, -1)


def project(x: Tensor, weight: Float[Tensor, "outputs inputs"]) -> Tensor:
    """Return x times the weight, in the weight's type."""
    return linear(x.to(weight.dtype), weight)


def hidden_where(seen: Tensor) -> Float[Tensor, "..."]:
    """Return what to add to scores: 0 where seen, else the lowest number (not minus infinity: a row of padding that
    sees nothing must not become nan)."""
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)


def lean(device: torch.device) -> torch.autocast:
    """Return the context of a lean decoder's arithmetic: its types are its own choice."""
    return torch.autocast(device.type, enabled=False)


def computed_type(model: torch.nn.Module) -> torch.dtype:
    """Return the type of the matrix products: autocast's if it is on, else that of the weights."""
    one: Any = next(model.parameters())
    on = torch.is_autocast_enabled(one.device.type)
    return torch.get_autocast_dtype(one.device.type) if on else one.dtype
