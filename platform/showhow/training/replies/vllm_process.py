"""Writes greedy replies by vLLM, in a process and an environment of its own: vLLM needs other versions of transformers
than ShowHow, and takes over a process's threads and its torch.distributed.

vllm_replies.py starts this file by its path, so it imports nothing of ShowHow. The first line of its input is JSON with
the settings of the model; each further line is a request, answered with one line.
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
    os.dup2(2, 1)  # so that what vLLM prints is not read as an answer
    settings = json.loads(sys.stdin.readline())
    model = LLM(
        settings["folder"],
        skip_tokenizer_init=True,
        generation_config="vllm",  # not the folder's, which may name further end tokens
        dtype=settings["dtype"],
        max_model_len=settings["places"],
        max_num_seqs=settings["at_once"],
        gpu_memory_utilization=settings["share"],
        kv_cache_memory_bytes=settings["cache_bytes"],
        enable_prefix_caching=False,  # the cache would outlive the weights that it was computed with
        enforce_eager=not torch.cuda.is_available(),  # compiling takes a minute on a CPU
    )
    _answer({}, answers)
    for line in sys.stdin:
        request = json.loads(line)
        if request["are_new_weights"]:
            model.collective_rpc("reload_weights")  # from the same folder
        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=request["max_new_tokens"],
            stop_token_ids=[request["end"]],
            ignore_eos=True,
            detokenize=False,
        )
        prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
        written = model.generate(prompts, sampling, use_tqdm=False) if prompts else []
        _answer({"replies": [list(one.outputs[0].token_ids) for one in written]}, answers)


def _answer(answer: dict[str, Any], to: TextIO) -> None:
    print(json.dumps(answer), file=to, flush=True)


if __name__ == "__main__":
    main()
