"""Writes greedy replies by vLLM, in a process and an environment of vLLM's own. It wants other versions of transformers
than ShowHow does, and takes a process's threads and its torch.distributed for itself.

vllm_replies.py starts this file by its path, so it imports nothing of ShowHow. It is told what to load by a line of
JSON, then reads a request a line, and answers each with a line.
"""

import json
import os
import sys
from typing import Any, TextIO

import torch
from vllm import LLM, SamplingParams  # type: ignore[import-not-found]


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    told = json.loads(sys.stdin.readline())
    model = LLM(
        told["folder"],
        skip_tokenizer_init=True,
        generation_config="vllm",  # not the folder's, which may name further end tokens
        dtype=told["dtype"],
        max_model_len=told["places"],
        max_num_seqs=told["at_once"],
        gpu_memory_utilization=told["share"],
        kv_cache_memory_bytes=told["cache_bytes"],
        enable_prefix_caching=False,  # it would outlive the weights that it was made with
        enforce_eager=not torch.cuda.is_available(),  # compiling takes a minute on a CPU
    )
    _answer({}, answers)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["are_new_weights"]:
            model.collective_rpc("reload_weights")  # from the same folder
        how = SamplingParams(
            temperature=0.0,
            max_tokens=asked["max_new_tokens"],
            stop_token_ids=[asked["end"]],
            ignore_eos=True,
            detokenize=False,
        )
        prompts = [{"prompt_token_ids": prompt} for prompt in asked["prompts"]]
        written = model.generate(prompts, how, use_tqdm=False) if prompts else []
        _answer({"replies": [list(one.outputs[0].token_ids) for one in written]}, answers)


def _answer(answer: dict[str, Any], to: TextIO) -> None:
    print(json.dumps(answer), file=to, flush=True)


if __name__ == "__main__":
    main()
