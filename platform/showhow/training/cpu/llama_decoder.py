"""The lean decoder of a transformers llama (arXiv 2302.13971): see attention_cache.py."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding, linear
from transformers import LlamaForCausalLM

from showhow.training.cpu.attention_cache import (
    TABLE_VOCABULARY,
    AttentionCache,
    Heads,
    View,
    can_be_lean,
    computed_type,
    lean,
)
from showhow.training.cpu.kernels import rotary_turns
from showhow.training.cpu.native import needed

# Rotary positions whose frequencies depend only on the configuration.
_ROTARY_KINDS = ("default", "linear", "llama3")


@dataclass(frozen=True)
class _Layer:
    """Weights as they are used: those with the same input are one matrix."""

    attention_norm: Tensor
    queries_keys_values: Tensor
    attention_output: Tensor
    mlp_norm: Tensor
    gate_and_up: Tensor
    down: Tensor


class LlamaDecoder:
    """A decoder of a llama (see Decoder). The weights are those at the time it was created."""

    pads_on_the_left = True

    def __init__(self, model: Any) -> None:
        self.device = model.device
        config, kind = model.config, computed_type(model)
        self._heads = Heads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self._epsilon = config.rms_norm_eps
        self._embeddings = model.get_input_embeddings().weight.float()
        self._norm = model.model.norm.weight.float()
        self._output = model.get_output_embeddings().weight.to(kind)
        self._layers = [self._read_layer(block, kind) for block in model.model.layers]
        self._frequencies = model.model.rotary_emb.inv_freq.float()
        self._turns = torch.empty(0)
        self._begins: Tensor | None = None
        self._dtype = kind
        self._table: Tensor | None = None
        if len(self._embeddings) <= TABLE_VOCABULARY:
            self._table = self._queries_keys_values(self._embeddings, self._layers[0])

    @staticmethod
    def reads(model: Any) -> bool:
        """True for a llama on a CPU with only weights and settings that this file supports: no biases, adapters or
        other norms."""
        if type(model) is not LlamaForCausalLM or model.config.hidden_act != "silu" or not can_be_lean(model):
            return False
        names = {name for name, _ in model.named_parameters()} - {"lm_head.weight"}
        is_plain: bool = model.config.rope_parameters["rope_type"] in _ROTARY_KINDS
        return is_plain and names == _names(model.config.num_hidden_layers)

    def begin(
        self, tokens: Int64[Tensor, "batch prompt"], mask: Int64[Tensor, "batch prompt"]
    ) -> Float[Tensor, "batch vocabulary"]:
        """Read prompts, padded on the left (see Decoder). Only differences of positions matter, so padding may shift
        them."""
        self._cache, self._length = AttentionCache(len(self._layers), self._heads, self._dtype), 0
        self._begins = None if bool(mask.all()) else mask.argmax(dim=1)
        with lean(tokens.device):
            return self._read(tokens)

    def advance(self, following: Int64[Tensor, " batch"]) -> Float[Tensor, "batch vocabulary"]:
        """Take one token per row (see Decoder)."""
        with lean(following.device):
            return self._read(following[:, None])

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Drop all other rows (see Decoder)."""
        self._cache.keep(rows)
        if self._begins is not None:
            self._begins = self._begins[rows]

    def _read(self, tokens: Int64[Tensor, "batch new"]) -> Float[Tensor, "batch vocabulary"]:
        new, start, native, heads = tokens.shape[1], self._length, needed(), self._heads
        self._length += new
        turns, seen = self._turns_until(self._length)[start : self._length], start + 1
        sizes = [heads.queries * heads.width, heads.keys * heads.width, heads.keys * heads.width]
        x = embedding(tokens, self._embeddings)
        for index, layer in enumerate(self._layers):
            if index == 0 and self._table is not None:
                found = embedding(tokens, self._table)
            else:
                found = self._queries_keys_values(x, layer)
            queries, keys, values = torch.split(found, sizes, dim=-1)
            self._cache.extend(index, start, keys, values, turns)
            if index == len(self._layers) - 1 and new > 1:  # only the logits after the last token are needed
                x, queries, turns, seen = x[:, -1:], queries[:, -1:].contiguous(), turns[-1:], self._length
            view = View(seen, heads.width**-0.5, turns, begins=self._begins)
            x = native.add(x, linear(self._cache.read(index, queries, view), layer.attention_output))
            both = linear(self._normed(x, layer.mlp_norm), layer.gate_and_up)
            x = native.add(x, linear(native.gate(both), layer.down))
        return linear(self._normed(x[:, -1].contiguous(), self._norm), self._output)

    def _turns_until(self, end: int) -> Float[Tensor, "places two width"]:
        """Return the rotary positions of the places before `end` (RoFormer, arXiv 2104.09864; see kernels.Looking)."""
        if end > len(self._turns):
            angles = torch.outer(torch.arange(2 * end), self._frequencies)
            self._turns = rotary_turns(angles)
        return self._turns

    def _queries_keys_values(self, x: Float[Tensor, "*rows hidden"], layer: _Layer) -> Tensor:
        return linear(self._normed(x, layer.attention_norm), layer.queries_keys_values)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return needed().norm(x, weight, self._epsilon, self._dtype)[0]

    def _read_layer(self, block: Any, kind: torch.dtype) -> _Layer:
        attention, mlp = block.self_attn, block.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        return _Layer(
            block.input_layernorm.weight.float(),
            torch.cat([one.weight for one in projections]).to(kind),
            attention.o_proj.weight.to(kind),
            block.post_attention_layernorm.weight.float(),
            torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).to(kind),
            mlp.down_proj.weight.to(kind),
        )


def _names(layers: int) -> set[str]:
    attention = {f"self_attn.{part}_proj" for part in ("q", "k", "v", "o")}
    mlp = {f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    of_layer = attention | mlp | {"input_layernorm", "post_attention_layernorm"}
    inner = {f"layers.{index}.{name}" for index in range(layers) for name in of_layer}
    return {f"model.{name}.weight" for name in inner | {"embed_tokens", "norm"}}
