"""The cache of keys and values, and the arithmetic that the lean decoders share.

A lean decoder reads the weights of a transformers model once and then takes one token per row with as few operations as
possible: on a small model, the mask, the output objects, the copies of grown caches and the casts that transformers
makes in each step cost more than the matrix products (docs/performance.md).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from showhow.training.cpu.native import Reading, can_compute, needed

# For vocabularies up to this size, the first layer's projections of each token are computed once and then looked up:
# before attention they do not depend on the position. This saves a seventh of a two-layer llama's arithmetic.
TABLE_VOCABULARY = 512

_LANES = 16  # of native.cpp: the number of places is a multiple of it
_LEAST_PLACES = 64


@dataclass(frozen=True)
class Heads:
    """The heads of an attention layer, and their width. There may be fewer heads of keys than of queries, each then
    shared by several (grouped queries, arXiv 2305.13245)."""

    queries: int
    keys: int
    width: int


@dataclass(frozen=True)
class View:
    """The keys that the queries of a batch attend to: the first query of each row to `places` keys, each further query
    to one more. begins: for each row, the place of the first key that is not padding. ends: for each row, the number of
    places at most. added: to the scores."""

    places: int
    scale: float = 1.0
    turns: Float[Tensor, "queries two width"] | None = None
    begins: Int64[Tensor, " batch"] | None = None
    ends: Int64[Tensor, " batch"] | None = None
    added: Float[Tensor, "heads places"] | None = None


class AttentionCache:
    """Keys and values of all layers of a batch, in the computing type, in native.cpp's memory format."""

    def __init__(self, layers: int, heads: Heads, dtype: torch.dtype) -> None:
        self._heads, self._dtype = heads, dtype
        self._layers = [(torch.empty(0), torch.empty(0))] * layers

    def extend(self, layer: int, start: int, keys: Tensor, values: Tensor, turns: Tensor | None = None) -> None:
        """Write keys and values, each batch x new x (heads x width), starting at place `start`. turns: of each token,
        see kernels.Looking. A layer's first call, with start 0, allocates the memory."""
        batch, new = keys.shape[:2]
        if start == 0 or start + new > self._layers[layer][1].shape[2]:
            self._allocate(layer, batch, start, start + new)
        all_keys, all_values = self._layers[layer]
        sizes = batch, self._heads.keys, self._heads.width, all_values.shape[2], start, new
        needed()("remember", self._dtype, *sizes, keys, values, keys.stride(1), turns, all_keys, all_values)

    def read(self, layer: int, queries: Tensor, view: View) -> Float[Tensor, "batch new heads_by_width"]:
        """Return softmax(queries x keys) x values; queries: batch x new x (heads x width)."""
        keys, values = self._layers[layer]
        reading = Reading(
            batch=len(queries),
            heads=self._heads.queries,
            key_heads=self._heads.keys,
            width=self._heads.width,
            places=values.shape[2],
            start=view.places,
            tokens=queries.shape[1],
            stride=queries.stride(1),
            scale=view.scale,
            turns=None if view.turns is None else view.turns.data_ptr(),
            begins=None if view.begins is None else view.begins.data_ptr(),
            ends=None if view.ends is None else view.ends.data_ptr(),
            added=None if view.added is None else view.added.data_ptr(),
            added_head=0 if view.added is None else view.added.stride(0),
        )
        result = torch.empty(queries.shape, dtype=self._dtype)
        needed()("read", self._dtype, reading, queries, keys, values, result)
        return result

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Drop all rows but these."""
        self._layers = [(keys[rows], values[rows]) for keys, values in self._layers]

    def _allocate(self, layer: int, batch: int, used: int, needed_places: int) -> None:
        blocks, width = -(-max(_LEAST_PLACES, 2 * needed_places) // _LANES), self._heads.width
        keys = torch.zeros(batch, self._heads.keys, blocks, width, _LANES, dtype=self._dtype)
        values = torch.zeros(batch, self._heads.keys, blocks * _LANES, width, dtype=self._dtype)
        if used:
            for new, old in zip((keys, values), self._layers[layer], strict=True):
                new[:, :, : old.shape[2]] = old
        self._layers[layer] = keys, values


def lean(device: torch.device) -> torch.autocast:
    """Return the context of a lean decoder's arithmetic, without autocast: the decoder chooses its types itself."""
    return torch.autocast(device.type, enabled=False)


def can_be_lean(model: Any) -> bool:
    """True where the compiled operations are available: on a CPU, in a type that they support."""
    return model.device.type == "cpu" and can_compute(computed_type(model))


def computed_type(model: torch.nn.Module) -> torch.dtype:
    """Return the computing type of matrix products: autocast's if it is on, else that of the weights."""
    one: Any = next(model.parameters())
    on = torch.is_autocast_enabled(one.device.type)
    return torch.get_autocast_dtype(one.device.type) if on else one.dtype
