"""Generation: batched greedy replies with a key-value cache. Rows whose reply has ended leave the batch.

The tokens are those of `transformers.generate` (a test compares them): computed in float32 they are the same but for
ties; computed in bfloat16 roundings differ, as they do between batches of different sizes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Int64
from numpy import ndarray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from showhow.training.decoder import Decoder
from showhow.training.llama_decoder import LlamaDecoder
from showhow.training.model import is_seq2seq
from showhow.training.t5_decoder import T5Decoder
from showhow.training.tokens import SpecialTokens
from showhow.training.transformers_decoder import CausalDecoder, Seq2SeqDecoder

# Asking a GPU which replies have ended makes it wait, so there it is asked only every so many steps.
_ASK_GPU_EVERY = 8
# Rows that have ended leave when they are so many of a batch: copying what the others have read costs half a step. From
# a tenth to a quarter is best (2,250 replies a second; 1,940 for each row that ends, 1,990 for none).
_LEAVE_TOGETHER = 0.25

Tokens = Int32[ndarray, " tokens"]


@torch.inference_mode()
def greedy_replies(
    model: torch.nn.Module,
    prompts: Sequence[Tokens],
    special: SpecialTokens,
    max_new_tokens: int,
    batch_size: int,
) -> list[list[int]]:
    """Return for each prompt the token ids the model writes, the end token left out.

    Prompts are taken in order of length, so that a batch holds little padding. A reply that does not end by itself is
    cut after `max_new_tokens`."""
    model.eval()
    decoder = _decoder_of(model, special)
    replies: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        tokens, mask = _padded([prompts[row] for row in chosen], special.pad, decoder)
        written = _write(decoder, tokens, mask, special.end, max_new_tokens).tolist()
        for row, reply in zip(chosen, written, strict=True):
            replies[row] = reply[: reply.index(special.end)] if special.end in reply else reply
    return replies


def _decoder_of(model: torch.nn.Module, special: SpecialTokens) -> Decoder:
    if not is_seq2seq(model):
        return LlamaDecoder(model) if LlamaDecoder.reads(model) else CausalDecoder(model)
    config: Any = model.config
    start = special.pad if config.decoder_start_token_id is None else config.decoder_start_token_id
    return T5Decoder(model, start) if T5Decoder.reads(model) else Seq2SeqDecoder(model, start)


def _write(
    decoder: Decoder,
    tokens: Int64[Tensor, "batch prompt"],
    mask: Int64[Tensor, "batch prompt"],
    end: int,
    max_new_tokens: int,
) -> Int64[Tensor, "batch max_new_tokens"]:
    """Return the replies of a batch, each filled up after its end with anything."""
    written = tokens.new_full((len(tokens), max_new_tokens), end)
    rows = torch.arange(len(tokens), device=tokens.device)  # those still in the batch
    ended = torch.zeros_like(rows, dtype=torch.bool)
    logits = decoder.begin(tokens, mask)
    for step in range(max_new_tokens):
        following = logits.argmax(dim=-1)
        written[rows, step] = following
        ended |= following == end
        if step + 1 == max_new_tokens:
            break
        if tokens.device.type == "cpu" or (step + 1) % _ASK_GPU_EVERY == 0:
            going_on = (~ended).nonzero()[:, 0]
            if not len(going_on):
                break
            if len(going_on) <= (1 - _LEAVE_TOGETHER) * len(rows):
                decoder.keep(going_on)
                rows, ended, following = rows[going_on], ended[going_on], following[going_on]
        logits = decoder.advance(following)
    return written


def _padded(
    prompts: Sequence[Tokens], pad: int, decoder: Decoder
) -> tuple[Int64[Tensor, "batch prompt"], Int64[Tensor, "batch prompt"]]:
    """Return prompts as one matrix, and the mask that tells them from padding. A causal model goes on after the last
    column, so its prompts end there; an encoder reads them where it was trained to, from the first."""
    side = "left" if decoder.pads_on_the_left else "right"
    rows = [torch.from_numpy(prompt.astype(np.int64)) for prompt in prompts]
    tokens = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side=side)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    return tokens.to(decoder.device), mask.to(decoder.device)
