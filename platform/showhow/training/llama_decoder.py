"""Writes replies with the weights of a transformers llama (arXiv 2302.13971), lean: see decoder.py."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float, Int64
from torch import Tensor
from torch.nn.functional import embedding, pad, rms_norm, silu
from transformers import LlamaForCausalLM

from showhow.training.decoder import (
    TABLE_VOCABULARY,
    AttentionCache,
    attend,
    computed_type,
    hidden_where,
    lean,
    places_for,
    project,
)

# Rotary positions whose frequencies depend on nothing but the configuration.
_ROTARY_KINDS = ("default", "linear", "llama3")


@dataclass(frozen=True)
class _Layer:
    """Weights as they are used: what has the same input is one matrix."""

    attention_norm: Tensor
    queries_keys_values: Tensor
    attention_output: Tensor
    mlp_norm: Tensor
    gate_and_up: Tensor
    down: Tensor


class LlamaDecoder:
    """A decoder of a llama (see Decoder). The weights are those at the time it was made.

    Rotary positions turn pairs of numbers as complex ones do, for which the two of a pair must be neighbours and not
    half a head apart: the rows of the query and key weights are put in that order."""

    pads_on_the_left = True

    def __init__(self, model: Any) -> None:
        self.device = model.device
        config, kind = model.config, computed_type(model)
        self._heads, self._key_heads, self._width = _head_sizes(config)
        self._epsilon = config.rms_norm_eps
        self._embeddings = model.get_input_embeddings().weight.float()
        self._norm = model.model.norm.weight
        self._output = model.get_output_embeddings().weight.to(kind)
        self._layers = [self._read_layer(block, kind) for block in model.model.layers]
        self._frequencies = model.model.rotary_emb.inv_freq.float()
        self._turns = torch.empty(0)
        self._shown: Tensor | None = None
        self._table: Tensor | None = None
        if len(self._embeddings) <= TABLE_VOCABULARY:
            self._table = self._queries_keys_values(self._embeddings, self._layers[0])

    @staticmethod
    def reads(model: Any) -> bool:
        """True for a llama of which this file knows every weight and setting: no biases, adapters or other norms."""
        if type(model) is not LlamaForCausalLM or model.config.hidden_act != "silu":
            return False
        names = {name for name, _ in model.named_parameters()} - {"lm_head.weight"}
        is_plain: bool = model.config.rope_parameters["rope_type"] in _ROTARY_KINDS
        return is_plain and names == _names(model.config.num_hidden_layers)

    def begin(
        self, tokens: Int64[Tensor, "batch prompt"], mask: Int64[Tensor, "batch prompt"]
    ) -> Float[Tensor, "batch vocabulary"]:
        """Read prompts, padded on the left (see Decoder). Only differences of positions count, so a row's padding may
        shift them."""
        self._cache, self._length = AttentionCache(len(self._layers)), 0
        self._shown = None if bool(mask.all()) else mask == 1
        with lean(tokens.device):
            return self._read(tokens)

    def advance(self, following: Int64[Tensor, " batch"]) -> Float[Tensor, "batch vocabulary"]:
        """Take a token a row (see Decoder)."""
        with lean(following.device):
            return self._read(following[:, None])

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Forget all other rows (see Decoder)."""
        self._cache.keep(rows)
        if self._shown is not None:
            self._shown = self._shown[rows]

    def _read(self, tokens: Int64[Tensor, "batch new"]) -> Float[Tensor, "batch vocabulary"]:
        (rows, new), start = tokens.shape, self._length
        self._length += new
        bias, turns = self._bias(start, self._length), self._rotations(start, self._length)
        x = embedding(tokens.flatten(), self._embeddings)
        for index, layer in enumerate(self._layers):
            if index == 0 and self._table is not None:
                found = embedding(tokens.flatten(), self._table).float()
            else:
                found = self._queries_keys_values(x, layer).float()
            pairs = found.view(rows, new, -1, self._width // 2, 2)
            torch.view_as_complex(pairs[:, :, : -self._key_heads]).mul_(turns)
            query, both = found.view(rows, new, -1, self._width).tensor_split([self._heads], dim=2)
            keys_values = self._cache.extend(index, start, both.view(rows, new, 2, self._key_heads, self._width))
            if index == len(self._layers) - 1 and new > 1:  # what comes after all but the last token is not asked for
                x, query, bias = x.view(rows, new, -1)[:, -1], query[:, -1:], bias[..., -1:, :]
            x = x + project(attend(query, keys_values, bias), layer.attention_output)
            gate, up = project(self._normed(x, layer.mlp_norm), layer.gate_and_up).chunk(2, dim=-1)
            x = x + project(silu(gate).mul_(up), layer.down)
        return project(self._normed(x, self._norm), self._output)

    def _bias(self, start: int, end: int) -> Float[Tensor, "#batch #heads new places"]:
        """Return what is added to the scores of the tokens from start to end: they see what is before them and no
        padding."""
        places = torch.arange(places_for(end, self._width), device=self._frequencies.device)
        seen = places <= places[start:end, None]
        if self._shown is not None:
            seen = seen & pad(self._shown, (0, len(places) - self._shown.shape[1]), value=True)[:, None, None]
        return hidden_where(seen)

    def _rotations(self, start: int, end: int) -> Complex[Tensor, "new heads_and_key_heads pairs"]:
        """Return what turns queries and keys by their positions (RoFormer, arXiv 2104.09864), and scales queries."""
        if end > len(self._turns):
            places = torch.arange(2 * end, device=self._frequencies.device)
            angles = torch.outer(places, self._frequencies)[:, None]
            lengths = angles.new_ones(self._heads + self._key_heads, 1)
            lengths[: self._heads] = self._width**-0.5
            self._turns = torch.polar(
                lengths.expand(len(angles), -1, angles.shape[-1]), angles.expand(-1, len(lengths), -1)
            )
        return self._turns[start:end]

    def _queries_keys_values(self, x: Float[Tensor, "rows hidden"], layer: _Layer) -> Tensor:
        return project(self._normed(x, layer.attention_norm), layer.queries_keys_values)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight.shape, weight, self._epsilon)

    def _read_layer(self, block: Any, kind: torch.dtype) -> _Layer:
        attention, mlp = block.self_attn, block.mlp
        turned = [_neighbouring(one.weight, self._width) for one in (attention.q_proj, attention.k_proj)]
        return _Layer(
            block.input_layernorm.weight,
            torch.cat([*turned, attention.v_proj.weight]).to(kind),
            attention.o_proj.weight.to(kind),
            block.post_attention_layernorm.weight,
            torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).to(kind),
            mlp.down_proj.weight.to(kind),
        )


def _neighbouring(weight: Float[Tensor, "outputs inputs"], width: int) -> Tensor:
    """Return the rows of each head so that row i and row i + width / 2 follow one another."""
    return weight.view(-1, 2, width // 2, weight.shape[1]).transpose(1, 2).reshape_as(weight)


def _head_sizes(config: Any) -> tuple[int, int, int]:
    return config.num_attention_heads, config.num_key_value_heads, config.head_dim


def _names(layers: int) -> set[str]:
    attention = {f"self_attn.{part}_proj" for part in ("q", "k", "v", "o")}
    mlp = {f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    of_layer = attention | mlp | {"input_layernorm", "post_attention_layernorm"}
    inner = {f"layers.{index}.{name}" for index in range(layers) for name in of_layer}
    return {f"model.{name}.weight" for name in inner | {"embed_tokens", "norm"}}
