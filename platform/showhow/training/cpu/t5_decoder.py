"""The lean decoder of a transformers T5 (arXiv 1910.10683) or T5 1.1: see attention_cache.py."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding, linear
from transformers import T5ForConditionalGeneration
from transformers.activations import ACT2FN

from showhow.training.cpu.attention_cache import (
    TABLE_VOCABULARY,
    AttentionCache,
    Heads,
    View,
    can_be_lean,
    computed_type,
    lean,
)
from showhow.training.cpu.loss import t5_encoded
from showhow.training.cpu.native import needed


@dataclass(frozen=True)
class _Layer:
    """Weights as they are used: those with the same input are one matrix. gate is None in a T5 that is not gated."""

    self_norm: Tensor
    queries_keys_values: Tensor
    self_output: Tensor
    question_norm: Tensor
    queries: Tensor
    keys_values: Tensor
    question_output: Tensor
    mlp_norm: Tensor
    gate: Tensor | None
    up: Tensor
    down: Tensor


class T5Decoder:
    """A decoder of a T5 (see Decoder). The weights are those at the time it was created."""

    pads_on_the_left = False

    def __init__(self, model: Any, start: int) -> None:
        self.device = model.device
        config, kind = model.config, computed_type(model)
        self._heads = Heads(config.num_heads, config.num_heads, config.d_kv)
        self._epsilon, self._dtype = config.layer_norm_epsilon, kind
        self._model, self._start, self._activate = model, start, ACT2FN[config.dense_act_fn]
        self._embeddings = model.decoder.embed_tokens.weight.float()
        self._layers = [_read_layer(block, kind) for block in model.decoder.block]
        # The scale of the original T5's outputs is applied with the weight of the last norm.
        self._norm = model.decoder.final_layer_norm.weight.float() * (
            config.d_model**-0.5 if config.scale_decoder_outputs else 1
        )
        self._output = model.get_output_embeddings().weight.to(kind)
        self._distances = torch.empty(0, 0)
        self._table: Tensor | None = None
        if len(self._embeddings) <= TABLE_VOCABULARY:
            self._table = self._queries_keys_values(self._embeddings, self._layers[0])

    @staticmethod
    def reads(model: Any) -> bool:
        """True for a T5 on a CPU with only weights that this file supports: no adapters."""
        if type(model) is not T5ForConditionalGeneration or not can_be_lean(model):
            return False
        names = {name for name, _ in model.named_parameters() if not name.startswith("encoder.")}
        return names - {"shared.weight", "lm_head.weight"} == _names(model.config)

    def begin(
        self, tokens: Int64[Tensor, "batch prompt"], mask: Int64[Tensor, "batch prompt"]
    ) -> Float[Tensor, "batch vocabulary"]:
        """Encode prompts, padded on the right (see Decoder)."""
        encoded = t5_encoded(self._model, tokens, mask, self._dtype)
        self._written, self._questions = (AttentionCache(len(self._layers), self._heads, self._dtype) for _ in range(2))
        self._ends, self._prompt, self._length = mask.sum(dim=1), tokens.shape[1], 0
        with lean(tokens.device):
            for index, layer in enumerate(self._layers):
                keys, values = linear(encoded.to(self._dtype), layer.keys_values).chunk(2, dim=-1)
                self._questions.extend(index, 0, keys, values)
        return self.advance(torch.full_like(tokens[:, 0], self._start))

    def advance(self, following: Int64[Tensor, " batch"]) -> Float[Tensor, "batch vocabulary"]:
        """Take one token per row (see Decoder)."""
        self._length += 1
        native, written = needed(), View(self._length, added=self._distance_biases())
        question = View(self._prompt, ends=self._ends)
        with lean(following.device):
            x = embedding(following[:, None], self._embeddings)
            for index, layer in enumerate(self._layers):
                if index == 0 and self._table is not None:
                    found = embedding(following[:, None], self._table)
                else:
                    found = self._queries_keys_values(x, layer)
                queries, keys, values = found.chunk(3, dim=-1)
                self._written.extend(index, self._length - 1, keys, values)
                x = native.add(x, linear(self._written.read(index, queries, written), layer.self_output))
                queries = linear(self._normed(x, layer.question_norm), layer.queries)
                x = native.add(x, linear(self._questions.read(index, queries, question), layer.question_output))
                x = native.add(x, self._mlp(self._normed(x, layer.mlp_norm), layer))
            return linear(self._normed(x[:, 0], self._norm), self._output)

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Drop all other rows (see Decoder)."""
        self._written.keep(rows)
        self._questions.keep(rows)
        self._ends = self._ends[rows]

    def _distance_biases(self) -> Float[Tensor, "heads places"]:
        """Return the biases added to the scores of the newest token, by its distance to each token before it."""
        reach = self._distances.shape[-1]
        if self._length > reach:
            reach = 2 * self._length
            first = self._model.decoder.block[0].layer[0].SelfAttention
            bias = first.compute_bias(1, reach, self.device, past_seen_tokens=reach - 1)
            self._distances = bias[0, :, 0].float().contiguous()
        return self._distances[:, reach - self._length :]

    def _mlp(self, x: Float[Tensor, "rows hidden"], layer: _Layer) -> Tensor:
        up = linear(x, layer.up)
        inner = self._activate(up) if layer.gate is None else self._activate(linear(x, layer.gate)).mul_(up)
        return linear(inner, layer.down)

    def _queries_keys_values(self, x: Float[Tensor, "rows hidden"], layer: _Layer) -> Tensor:
        return linear(self._normed(x, layer.self_norm), layer.queries_keys_values)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return needed().norm(x, weight, self._epsilon, self._dtype)[0]


def _read_layer(block: Any, kind: torch.dtype) -> _Layer:
    own, question, mlp = block.layer[0].SelfAttention, block.layer[1].EncDecAttention, block.layer[2].DenseReluDense
    gated = "wi_0" in dict(mlp.named_children())
    return _Layer(
        block.layer[0].layer_norm.weight.float(),
        torch.cat([own.q.weight, own.k.weight, own.v.weight]).to(kind),
        own.o.weight.to(kind),
        block.layer[1].layer_norm.weight.float(),
        question.q.weight.to(kind),
        torch.cat([question.k.weight, question.v.weight]).to(kind),
        question.o.weight.to(kind),
        block.layer[2].layer_norm.weight.float(),
        mlp.wi_0.weight.to(kind) if gated else None,
        (mlp.wi_1 if gated else mlp.wi).weight.to(kind),
        mlp.wo.weight.to(kind),
    )


def _names(config: Any) -> set[str]:
    mlp = ("wi_0", "wi_1", "wo") if config.is_gated_act else ("wi", "wo")
    attention = [f"{kind}.{part}" for kind in ("0.SelfAttention", "1.EncDecAttention") for part in ("q", "k", "v", "o")]
    of_layer = [*attention, *(f"2.DenseReluDense.{part}" for part in mlp), *(f"{part}.layer_norm" for part in range(3))]
    inner = {f"block.{index}.layer.{name}" for index in range(config.num_decoder_layers) for name in of_layer}
    others = {"final_layer_norm", "block.0.layer.0.SelfAttention.relative_attention_bias"}
    return {f"decoder.{name}.weight" for name in inner | others}
