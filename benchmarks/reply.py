"""Replies a second: ours beside `transformers.generate`, same model, same prompts, one thread, same tokens (asserted in
float32; in bfloat16 autocast roundings differ, between any two batch sizes of the peer too).

The peer gets its best settings, those that are fastest in a first round: batch size, eager attention or SDPA, a growing
or a static cache, and for bfloat16 its weights in that type, or autocast, or no bfloat16 at all. The
limit is arithmetic: the matrix products of one pass over prompts and replies, at the rate of a large one in that type.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from benchmarks.measure import Figure, alternately, seconds, spread
from showhow.training.memory import keep_freed_memory
from showhow.training.replies.reply import greedy_replies
from showhow.training.tokens import SpecialTokens

VOCABULARY = 40
NO_END = VOCABULARY - 1  # no model here writes it
STATIC = {"cache_implementation": "static", "disable_compile": True}
Replies = list[list[int]]


@dataclass(frozen=True)
class Case:
    """So many prompts, tokens of each, and most of a reply; `batch_size` is ours. ends: replies end by themselves, at
    different lengths."""

    name: str
    model: Any
    tokens: tuple[int, int] = (12, 34)
    prompts: int = 200
    batch_size: int = 256
    in_bfloat16: bool = False
    ends: bool = False
    inputs: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        drawn = np.random.default_rng(0).integers(3, NO_END, (self.prompts, self.tokens[0]))
        object.__setattr__(self, "inputs", torch.from_numpy(drawn))

    def precision(self) -> AbstractContextManager[object]:
        """Return the context to compute in."""
        return torch.autocast("cpu", dtype=torch.bfloat16) if self.in_bfloat16 else nullcontext()


def figures(full: bool = False) -> list[Figure]:
    """Measure models of 0.3M parameters; in the long form also of 5M, and more lengths and batch sizes."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return [_measure(case) for case in _cases(full)]


def _cases(full: bool) -> Iterator[Case]:
    llama, t5 = _llama(128, 2), _t5(96, 1)
    for narrow in (False, True):
        yield Case("llama 0.3M", llama, in_bfloat16=narrow)
        yield Case("llama 0.3M, ends early", llama, in_bfloat16=narrow, ends=True)
        yield Case("t5 0.3M", t5, in_bfloat16=narrow)
    for narrow in (False, True) if full else ():
        yield Case("llama 0.3M", llama, (17, 48), prompts=500, in_bfloat16=narrow)
        yield Case("llama 0.3M, batches of 64", llama, batch_size=64, in_bfloat16=narrow)
        yield Case("llama 5M", _llama(256, 6), in_bfloat16=narrow)
        yield Case("t5 5M", _t5(256, 3), in_bfloat16=narrow)


def _measure(case: Case) -> Figure:
    new = case.tokens[1]
    end = _common(_generate(Way(case.model), case, NO_END), new) if case.ends else NO_END
    special = SpecialTokens(pad=0, end=end, start=None, vocabulary=VOCABULARY)
    prompts = [row.numpy().astype(np.int32) for row in case.inputs]
    written = _generate(Way(case.model), case, end)

    def ours() -> Replies:
        with case.precision():
            return greedy_replies(case.model, prompts, special, new, case.batch_size)

    if not case.in_bfloat16 and ours() != written:
        raise AssertionError(f"{case.name}: ours and transformers.generate wrote different tokens")
    best = min(_ways(case), key=lambda way: min(seconds(lambda: _generate(way, case, end)) for _ in range(2)))
    mine, theirs = alternately(ours, lambda: _generate(best, case, end))
    kind = "bfloat16" if case.in_bfloat16 else "float32"
    return Figure(
        f"{case.name}, {case.tokens[0]} + {new} tokens, {kind}",
        "replies/s",
        case.prompts / median(mine),
        spread(mine),
        peer=case.prompts / median(theirs),
        limit=_limit(case, fmean(len(reply) for reply in written)),
    )


@dataclass(frozen=True)
class Way:
    """One of the peer's: a model, how many prompts at once, a cache."""

    model: Any
    at_once: int = 200
    is_static: bool = False
    autocast: bool = False


def _ways(case: Case) -> Iterator[Way]:
    """Yield all ways that a competent user would try, to the same tokens but for roundings."""
    models = [(case.model, False)]
    if case.in_bfloat16:
        models += [(case.model, True), (deepcopy(case.model).to(torch.bfloat16), False)]
    for (model, autocast), attention in product(models, ("eager", "sdpa")):
        one = deepcopy(model)
        one.set_attn_implementation(attention)
        # Under autocast the static cache is of another type than what is to be written to it.
        for at_once, is_static in product(sorted({64, 128, case.prompts}), (False,) if autocast else (False, True)):
            yield Way(one, at_once, is_static, autocast)


@torch.inference_mode()
def _generate(way: Way, case: Case, end: int) -> Replies:
    replies: Replies = []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way.autocast):
        for inputs in case.inputs.split(way.at_once):
            written = way.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=case.tokens[1],
                do_sample=False,
                pad_token_id=0,
                eos_token_id=end,
                **(STATIC if way.is_static else {}),
            )
            replies += written[:, 1 if case.model.config.is_encoder_decoder else case.tokens[0] :].tolist()
    return [reply[: reply.index(end)] if end in reply else reply for reply in replies]


def _common(replies: Replies, longest: int) -> int:
    """Return the token that comes first halfway through the replies, on average."""

    def first(token: int) -> float:
        return fmean(reply.index(token) if token in reply else longest for reply in replies)

    return min(range(1, NO_END), key=lambda token: abs(first(token) - longest / 2))


@torch.inference_mode()
def _limit(case: Case, reply_tokens: float) -> float:
    """Return the replies a second that the processor could multiply."""
    prompt, new = case.inputs[:1], torch.zeros(1, case.tokens[1], dtype=torch.long)
    with FlopCounterMode(display=False) as counted:
        if case.model.config.is_encoder_decoder:
            case.model(input_ids=prompt, decoder_input_ids=new)
        else:
            case.model(input_ids=torch.cat([prompt, new[:, 1:]], dim=1))
    share = (case.tokens[0] + min(reply_tokens + 1, case.tokens[1])) / sum(case.tokens)
    size = 1024
    one = torch.randn(size, size, dtype=torch.bfloat16 if case.in_bfloat16 else torch.float32)
    taken = min(seconds(lambda: one @ one) for _ in range(9))
    return 2 * size**3 / taken / (counted.get_total_flops() * share)


def _llama(size: int, layers: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size,
        intermediate_size=2 * size if size < 256 else 4 * size,
        num_hidden_layers=layers,
        num_attention_heads=8,
        initializer_range=0.06,
        attn_implementation="eager",
        pad_token_id=0,
        bos_token_id=None,
    )
    return _without_end(LlamaForCausalLM(config))


def _t5(size: int, layers: int) -> Any:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=size,
        d_kv=16 if size < 256 else 32,
        d_ff=4 * size,
        num_layers=layers,
        num_heads=size // (16 if size < 256 else 32),
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return _without_end(T5ForConditionalGeneration(config))


def _without_end(model: Any) -> Any:
    """Give the end token the logit 0, which is never the largest of so many."""
    with torch.no_grad():
        model.get_output_embeddings().weight[NO_END] = 0.0
    return model.eval()
