"""Replies a second: our greedy loop beside `transformers.generate`, same model, same prompts, same tokens
(asserted)."""

from statistics import median

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measure import Figure, alternately, spread
from showhow.training.reply import greedy_replies
from showhow.training.tokens import SpecialTokens

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 200, 12, 34
SPECIAL = SpecialTokens(pad=0, end=1, start=None, vocabulary=40)


def figures(full: bool = False) -> list[Figure]:
    """Measure a 0.3M-parameter llama with one thread. The peer gets its best settings: one batch, no sampling, a
    cache."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = LlamaForCausalLM(_config()).eval()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 40, PROMPT_TOKENS).astype(np.int32) for _ in range(PROMPTS)]
    inputs = torch.from_numpy(np.stack(prompts).astype(np.int64))

    def ours() -> list[list[int]]:
        return greedy_replies(model, prompts, SPECIAL, NEW_TOKENS, batch_size=PROMPTS)

    @torch.inference_mode()
    def peer() -> list[list[int]]:
        written = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=SPECIAL.pad,
            eos_token_id=SPECIAL.end,
        )[:, PROMPT_TOKENS:].tolist()
        return [tokens[: tokens.index(SPECIAL.end)] if SPECIAL.end in tokens else tokens for tokens in written]

    if ours() != peer():
        raise AssertionError("our loop and transformers.generate wrote different tokens")
    mine, theirs = alternately(ours, peer)
    return [
        Figure(
            f"replies of {NEW_TOKENS} tokens, llama 0.3M",
            "replies/s",
            PROMPTS / median(mine),
            spread(mine),
            peer=PROMPTS / median(theirs),
        )
    ]


def _config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=SPECIAL.vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=8,
        attn_implementation="eager",
        pad_token_id=SPECIAL.pad,
        eos_token_id=SPECIAL.end,
        bos_token_id=None,
    )
