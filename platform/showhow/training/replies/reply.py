"""Generation: batched greedy or sampled replies with a key-value cache. Rows whose reply has ended leave the batch.

Greedy tokens are those of `transformers.generate` (a test compares them): in float32 they are the same except for ties;
in bfloat16 rounding differs, as it does between batches of different sizes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from numpy import ndarray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from showhow.training.cpu import fast_decoder
from showhow.training.model import is_seq2seq, positions
from showhow.training.ranks import highest, is_shared_out
from showhow.training.replies.decoder import Decoder
from showhow.training.replies.transformers_decoder import CausalDecoder, Seq2SeqDecoder
from showhow.training.replies.vllm_replies import VllmReplies
from showhow.training.tokens import SpecialTokens

# Reading from a GPU which replies have ended makes it wait, so there it is read only every few steps.
_CHECK_GPU_EVERY = 8
# Ended rows are removed when they are this share of a batch, as copying the cache of the others costs half a step. A
# tenth to a quarter is best (2,250 replies a second; 1,940 if each row is removed as it ends, 1,990 if none is).
_LEAVE_TOGETHER = 0.25

Tokens = Int32[ndarray, " tokens"]


def greedy_replies(
    model: torch.nn.Module | VllmReplies,
    prompts: Sequence[Tokens],
    special: SpecialTokens,
    max_new_tokens: int,
    batch_size: int,
) -> list[list[int]]:
    """Return `written_replies` with the likeliest token at each step."""
    return written_replies(model, prompts, special, max_new_tokens, batch_size)


def written_replies(
    model: torch.nn.Module | VllmReplies,
    prompts: Sequence[Tokens],
    special: SpecialTokens,
    max_new_tokens: int,
    batch_size: int,
    sampling: tuple[float, int] = (0.0, 0),
) -> list[list[int]]:
    """Return for each prompt the token ids that the model writes, without the end token. sampling: the temperature (0
    takes the likeliest token at each step), and the seed of the sampled tokens.

    Batches are formed in order of length, so that they contain little padding. A reply that does not end by itself is
    cut off after `max_new_tokens`, or where the model has no more positions. Processes over which a model's weights are
    partitioned must all call this, each with its own prompts, even if it has none."""
    if isinstance(model, VllmReplies):
        return model.write(prompts, special.end, max_new_tokens)
    choose = _Choice(*sampling)
    model.eval()
    together = is_shared_out(model)
    # Gathered parts of partitioned weights may be used in training later, which tensors of inference mode may not.
    with torch.no_grad() if together else torch.inference_mode():
        places, decoder = positions(model), _decoder_of(model, special, together)
        replies: list[list[int]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        batches = -(-len(order) // batch_size)
        for batch in range(int(highest(batches)) if together else batches):
            chosen = order[batch * batch_size : (batch + 1) * batch_size]
            some = [prompts[row] for row in chosen] or [np.array([special.end])]  # takes part in the others' batch
            tokens, mask = _padded(some, special.pad, decoder)
            taken = 0 if is_seq2seq(model) else tokens.shape[1]
            most = max_new_tokens if places is None else min(max_new_tokens, max(1, places - taken))
            if together:
                most = int(-highest(-most))
            shared_prompts = len(chosen) if together else None
            written = _write(decoder, (tokens, mask), (special.end, most), shared_prompts, choose).tolist()
            for row, reply in zip(chosen, written, strict=False):
                replies[row] = reply[: reply.index(special.end)] if special.end in reply else reply
    return replies


def _decoder_of(model: torch.nn.Module, special: SpecialTokens, together: bool) -> Decoder:
    """Return the decoder of a model. Partitioned weights are gathered only while transformers' own modules run."""
    config: Any = model.config
    begin = getattr(config, "decoder_start_token_id", None)
    start = special.pad if begin is None else begin
    fast = None if together else fast_decoder(model, start)
    if fast is not None:
        return fast
    return Seq2SeqDecoder(model, start) if is_seq2seq(model) else CausalDecoder(model)


def _write(
    decoder: Decoder,
    prompts: tuple[Int64[Tensor, "batch prompt"], Int64[Tensor, "batch prompt"]],
    end_and_most: tuple[int, int],
    shared_prompts: int | None,
    choose: "_Choice",
) -> Int64[Tensor, "batch max_new_tokens"]:
    """Return the replies of a batch; the tokens after a reply's end are arbitrary. prompts: tokens, and their mask.
    end_and_most: the end token, and the most tokens of a reply. shared_prompts: the number of real prompts here, where
    processes with partitioned weights write together until none has an unfinished reply; else None."""
    (tokens, mask), (end, max_new_tokens) = prompts, end_and_most
    written = tokens.new_full((len(tokens), max_new_tokens), end)
    rows = torch.arange(len(tokens), device=tokens.device)  # those still in the batch
    ended = torch.full_like(rows, shared_prompts == 0, dtype=torch.bool)
    logits = decoder.begin(tokens, mask)
    for step in range(max_new_tokens):
        following = choose(logits)
        written[rows, step] = following
        ended |= following == end
        if step + 1 == max_new_tokens:
            break
        if tokens.device.type == "cpu" or (step + 1) % _CHECK_GPU_EVERY == 0:
            unfinished = (~ended).nonzero()[:, 0]
            if not (len(unfinished) if shared_prompts is None else highest(len(unfinished))):
                break
            if 0 < len(unfinished) <= (1 - _LEAVE_TOGETHER) * len(rows):
                decoder.keep(unfinished)
                rows, ended, following = rows[unfinished], ended[unfinished], following[unfinished]
        logits = decoder.advance(following)
    return written


class _Choice:
    """Chooses the next token of each row from its logits."""

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature, self._drawing = temperature, torch.Generator().manual_seed(seed)

    def __call__(self, logits: Float[Tensor, "batch vocabulary"]) -> Int64[Tensor, " batch"]:
        if self._temperature == 0:
            return logits.argmax(dim=-1)
        shares = torch.softmax(logits.float() / self._temperature, dim=-1).cpu()
        return torch.multinomial(shares, 1, generator=self._drawing)[:, 0].to(logits.device)


def _padded(
    prompts: Sequence[Tokens], pad: int, decoder: Decoder
) -> tuple[Int64[Tensor, "batch prompt"], Int64[Tensor, "batch prompt"]]:
    """Return prompts as one matrix, and their mask (0 on padding). A causal model continues after the last column, so
    its prompts end there; an encoder was trained on prompts that start at the first column."""
    side = "left" if decoder.pads_on_the_left else "right"
    rows = [torch.from_numpy(prompt.astype(np.int64)) for prompt in prompts]
    tokens = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side=side)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    return tokens.to(decoder.device), mask.to(decoder.device)
