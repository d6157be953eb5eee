"""Decoders for any model of transformers, by its own forward pass: for models that no lean decoder supports."""

import inspect
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from showhow.training.adapter import bare, tuned_prompt


class CausalDecoder:
    """A decoder of a causal model (see Decoder). Positions, and that only the last logits are needed, are passed to
    models that accept them; ALiBi models such as BLOOM compute positions from the mask."""

    pads_on_the_left = True

    def __init__(self, model: Any) -> None:
        self.device = next(model.parameters()).device
        self._prompt, self._model = tuned_prompt(model), bare(model)
        model = self._model
        self._accepted = set(inspect.signature(model.forward).parameters)

    def begin(
        self, tokens: Int64[Tensor, "batch prompt"], mask: Int64[Tensor, "batch prompt"]
    ) -> Float[Tensor, "batch vocabulary"]:
        """Read prompts, padded on the left (see Decoder)."""
        inputs, self._mask = _after_prompt(self._model, self._prompt, tokens, mask)
        self._cache: Any = None
        self._is_padded = not bool(mask.all())
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._next_position = positions[:, -1:] + 1
        return self._read(inputs, positions)

    def advance(self, following: Int64[Tensor, " batch"]) -> Float[Tensor, "batch vocabulary"]:
        """Take a token a row (see Decoder)."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        logits = self._read({"input_ids": following[:, None]}, self._next_position)
        self._next_position = self._next_position + 1
        return logits

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Forget all other rows (see Decoder)."""
        self._mask, self._next_position = self._mask[rows], self._next_position[rows]
        if self._cache is not None:
            self._cache.reorder_cache(rows)  # the one selection that all caches know, for beams

    def _read(self, inputs: dict[str, Tensor], positions: Tensor) -> Float[Tensor, "batch vocabulary"]:
        optional = {"position_ids": positions, "logits_to_keep": 1}
        output = self._model(
            **inputs,
            attention_mask=self._mask if self._is_padded else None,
            past_key_values=self._cache,
            use_cache=True,
            **{name: value for name, value in optional.items() if name in self._accepted},
        )
        self._cache = output.past_key_values
        logits: Tensor = output.logits[:, -1]
        return logits


class Seq2SeqDecoder:
    """A decoder of an encoder-decoder model (see Decoder): the question is encoded once, the reply decoded step by
    step."""

    pads_on_the_left = False

    def __init__(self, model: Any, start: int) -> None:
        self.device = next(model.parameters()).device
        self._prompt, self._model, self._start = tuned_prompt(model), bare(model), start

    def begin(
        self, tokens: Int64[Tensor, "batch prompt"], mask: Int64[Tensor, "batch prompt"]
    ) -> Float[Tensor, "batch vocabulary"]:
        """Encode prompts, padded on the right (see Decoder)."""
        inputs, self._mask = _after_prompt(self._model, self._prompt, tokens, mask)
        self._cache: Any = None
        self._encoded = self._model.get_encoder()(**inputs, attention_mask=self._mask)
        return self.advance(torch.full_like(tokens[:, 0], self._start))

    def advance(self, following: Int64[Tensor, " batch"]) -> Float[Tensor, "batch vocabulary"]:
        """Take a token a row (see Decoder)."""
        output = self._model(
            encoder_outputs=self._encoded,
            attention_mask=self._mask,
            decoder_input_ids=following[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = output.past_key_values
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Forget all other rows (see Decoder)."""
        self._mask = self._mask[rows]
        self._encoded.last_hidden_state = self._encoded.last_hidden_state[rows]
        self._cache.reorder_cache(rows)  # the one selection that all caches know, for beams


def _after_prompt(
    model: Any,
    prompt: Float[Tensor, "one tuned hidden"] | None,
    tokens: Int64[Tensor, "batch prompt"],
    mask: Int64[Tensor, "batch prompt"],
) -> tuple[dict[str, Tensor], Int64[Tensor, "batch tuned_and_prompt"]]:
    """Return a model's inputs and their mask: tokens, or with prompt tuning its vectors and then those of the
    tokens."""
    if prompt is None:
        return {"input_ids": tokens}, mask
    vectors = model.get_input_embeddings()(tokens)
    before = prompt.to(vectors.dtype).expand(len(tokens), -1, -1)
    mask = torch.cat([mask.new_ones(before.shape[:2]), mask], dim=1)
    return {"inputs_embeds": torch.cat([before, vectors], dim=1)}, mask
