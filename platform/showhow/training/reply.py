"""Generation: batched greedy replies with a key-value cache, ending as soon as every reply of the batch has ended.

A loop of our own, so that batches are cut by length, run under our autocast, and can be made faster; it gives the
tokens of `transformers.generate` (a test compares them), so far at the same speed (benchmarks/reply.py).
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Int64
from numpy import ndarray
from torch import Tensor

from showhow.training.model import is_seq2seq
from showhow.training.tokens import SpecialTokens


@torch.inference_mode()
def greedy_replies(
    model: torch.nn.Module,
    prompts: Sequence[Int32[ndarray, " tokens"]],
    special: SpecialTokens,
    max_new_tokens: int,
    batch_size: int,
) -> list[list[int]]:
    """Return for each prompt the token ids the model writes, the end token left out.

    Prompts are taken in order of length, so that a batch holds little padding. A reply that does not end by itself is
    cut after `max_new_tokens`."""
    model.eval()
    replies: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        columns = list(_greedy_steps(model, [prompts[index] for index in chosen], special, max_new_tokens))
        written = torch.stack(columns, dim=1).tolist() if columns else [[] for _ in chosen]
        for index, tokens in zip(chosen, written, strict=True):
            replies[index] = tokens[: tokens.index(special.end)] if special.end in tokens else tokens
    return replies


def _greedy_steps(
    model: torch.nn.Module, prompts: list[Int32[ndarray, " tokens"]], special: SpecialTokens, max_new_tokens: int
) -> Iterator[Int64[Tensor, " batch"]]:
    """Yield the next token of every row, step by step, until all rows have written the end token."""
    device = next(model.parameters()).device
    tokens, mask = (tensor.to(device) for tensor in _padded(prompts, special.pad, on_the_left=not is_seq2seq(model)))
    state = _Seq2SeqState(model, tokens, mask, special) if is_seq2seq(model) else _CausalState(model, tokens, mask)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        following = state.next_logits().argmax(dim=-1)
        yield following
        finished |= following == special.end
        # Asking a GPU whether all rows are done makes it wait, so there it is asked only now and then.
        if (device.type == "cpu" or step % 8 == 7) and bool(finished.all()):
            return
        state.advance(following)


class _CausalState:
    """A causal model with what it has read so far. Models are told positions and that only the last logits are wanted
    where they can be; ALiBi models such as BLOOM work positions out from the mask."""

    def __init__(self, model: Any, tokens: Int64[Tensor, "batch prompt"], mask: Int64[Tensor, "batch prompt"]) -> None:
        self._model, self._mask = model, mask
        self._padded = not bool(mask.all())
        self._understood = set(inspect.signature(model.forward).parameters)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        self._output = self._forward(tokens, positions, None)
        self._next_position = positions[:, -1:] + 1

    def next_logits(self) -> Tensor:
        logits: Tensor = self._output.logits[:, -1]
        return logits

    def advance(self, following: Int64[Tensor, " batch"]) -> None:
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        self._output = self._forward(following[:, None], self._next_position, self._output.past_key_values)
        self._next_position = self._next_position + 1

    def _forward(self, tokens: Tensor, positions: Tensor, cache: Any) -> Any:
        optional = {"position_ids": positions, "logits_to_keep": 1}
        return self._model(
            input_ids=tokens,
            attention_mask=self._mask if self._padded else None,
            past_key_values=cache,
            use_cache=True,
            **{name: value for name, value in optional.items() if name in self._understood},
        )


class _Seq2SeqState:
    """An encoder-decoder model: the question is encoded once, the reply decoded step by step."""

    def __init__(
        self,
        model: Any,
        tokens: Int64[Tensor, "batch prompt"],
        mask: Int64[Tensor, "batch prompt"],
        special: SpecialTokens,
    ) -> None:
        self._model, self._mask = model, mask
        self._encoded = model.get_encoder()(input_ids=tokens, attention_mask=mask)
        begin = model.config.decoder_start_token_id
        first = torch.full((len(tokens), 1), special.pad if begin is None else begin, device=tokens.device)
        self._output = self._forward(first, None)

    def next_logits(self) -> Tensor:
        logits: Tensor = self._output.logits[:, -1]
        return logits

    def advance(self, following: Int64[Tensor, " batch"]) -> None:
        self._output = self._forward(following[:, None], self._output.past_key_values)

    def _forward(self, tokens: Tensor, cache: Any) -> Any:
        return self._model(
            encoder_outputs=self._encoded,
            attention_mask=self._mask,
            decoder_input_ids=tokens,
            past_key_values=cache,
            use_cache=True,
        )


def _padded(
    prompts: list[Int32[ndarray, " tokens"]], pad: int, on_the_left: bool
) -> tuple[Int64[Tensor, "batch prompt"], Int64[Tensor, "batch prompt"]]:
    """Return prompts as one matrix, and the mask that tells them from padding. A causal model goes on after the last
    column, so its prompts end there; an encoder reads them where it was trained to, from the first."""
    width = max(map(len, prompts))
    tokens = np.full((len(prompts), width), pad, dtype=np.int64)
    mask = np.zeros((len(prompts), width), dtype=np.int64)
    for index, prompt in enumerate(prompts):
        place = slice(width - len(prompt), width) if on_the_left else slice(len(prompt))
        tokens[index, place] = prompt
        mask[index, place] = 1
    return torch.from_numpy(tokens), torch.from_numpy(mask)
