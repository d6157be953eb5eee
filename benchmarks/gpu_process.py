"""The parts of `benchmarks.gpu` that need a process of their own, so that none finds what another left behind: cuDNN
keeps a plan for each shape of attention that a process has met.

`python -m benchmarks.gpu_process CASE` prints the case's figures as one line of JSON.
"""

import contextlib
import copy
import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention as attend

from benchmarks.gpu_measure import (
    DEVICE,
    FEW,
    GPU,
    LARGE,
    LENGTH,
    MANY,
    ROWS,
    SMALL,
    built,
    busy,
    causal,
    clean,
    cudnn_attention,
    engine_of,
    once_ms,
    padded,
    peak_gb,
    small_batch,
    special,
    step_figures,
    synchronise,
    timed,
)
from showhow.training.replies.reply import greedy_replies

PROMPTS, NEW_TOKENS = (256, 64) if GPU else (4, 4)
AUTOCAST, NARROW = "autocast", "bfloat16 weights"
TIMES = ("first", "again", "a third time")
Figures = dict[str, object]
QueriesKeysValues = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def replies(*order: str) -> Figures:
    """Write replies by float32 weights under autocast and by bfloat16 weights, in this order: what comes first finds no
    plans."""
    prompts = [torch.randint(2, MANY, (100 + row % 50,)).numpy().astype("int32") for row in range(PROMPTS)]
    engine = engine_of(built(LARGE))
    narrow = copy.deepcopy(engine.model).bfloat16()

    def ask(kind: str, how_many: int, most: int) -> None:
        with engine.autocast() if kind == AUTOCAST else contextlib.nullcontext():
            model = engine.model if kind == AUTOCAST else narrow
            greedy_replies(model, prompts[:how_many], special(), most, how_many)

    def figures(kind: str, how_many: int) -> Figures:
        clean()
        milliseconds = once_ms(lambda: ask(kind, how_many, NEW_TOKENS))
        tokens = min(how_many, PROMPTS) * NEW_TOKENS
        return {"tokens/s": 1e3 * tokens / milliseconds, "ms": milliseconds / NEW_TOKENS, "peak GB": peak_gb()}

    for kind in order:
        ask(kind, 8, 4)  # loads what is loaded at a first use
    found: Figures = {}
    for size in (32, 256):
        for kind in order:
            found |= {f"{size} at once, {kind}, {time}": figures(kind, size) for time in TIMES}
    for kind in order if GPU else ():
        few, more = (busy(functools.partial(ask, kind, PROMPTS, tokens)) for tokens in (1, 9))
        found[f"{kind}, GPU's own ms a token"] = (more["busy ms"] - few["busy ms"]) / 8  # type: ignore[operator]
    return found


def steps() -> Figures:
    """Train on rows of a length that was not there before, and of the same lengths again; then on a fixed shape."""
    engine = engine_of(built(LARGE))
    lengths = [LENGTH // 2 - row * max(1, LENGTH // 256) for row in range(6)]
    found: Figures = {}
    for name, has_mask in (("masks", True), ("no masks", False)):
        begin = padded(causal(2, LENGTH // 2 + 8), has_mask)
        timed(functools.partial(engine.step, begin, 1e-4), before=1)
        some = [functools.partial(engine.step, padded(causal(2, one), has_mask), 1e-4) for one in lengths]
        found |= {f"{name}, {time}, ms": [once_ms(step) for step in some] for time in TIMES}
        found[f"{ROWS} x {LENGTH}, {name}"] = step_figures(engine, padded(causal(ROWS, LENGTH), has_mask), 4)
    return found


def attention() -> Figures:
    """Compute attention by itself, forward and backward, of lengths that were not there before, and again, in ms."""
    lengths = [LENGTH // 2 - row * max(1, LENGTH // 256) for row in range(1, 4)]
    found: Figures = {}
    for is_on in (True, False):
        with cudnn_attention(is_on):
            for kind in ("step", "step, mask", "token", "token, mask"):
                made = [_inputs(kind, length) for length in lengths]
                times = {time: [_passes(*one) for one in made] for time in TIMES[:2]}
                backend = torch._fused_sdp_choice(*made[0][0], **made[0][1])
                found[f"{kind}, cuDNN {'on' if is_on else 'off'}"] = {"backend": backend, **times}
    return found


def _inputs(kind: str, length: int) -> tuple[QueriesKeysValues, dict[str, Any]]:
    """Return queries, keys and values of a step, or of a token that is added to replies; and the mask."""
    is_step = kind.startswith("step")
    rows, asked = (2, length) if is_step else (32, 1)
    make = functools.partial(torch.randn, device=DEVICE, dtype=torch.bfloat16, requires_grad=is_step)
    made = (make(rows, 16, asked, 128), make(rows, 16, length, 128), make(rows, 16, length, 128))
    if "mask" not in kind:
        return made, {"is_causal": is_step}
    mask = torch.ones(rows, 1, asked, length, dtype=torch.bool, device=DEVICE).tril(length - asked)
    mask[0, :, :, 1 : length // 8] = False
    return made, {"attn_mask": mask}


def _passes(made: QueriesKeysValues, words: dict[str, Any]) -> tuple[float, float]:
    """Return the milliseconds of the forward and of the backward pass; a token has none."""
    results: list[torch.Tensor] = []
    forward = once_ms(lambda: results.append(attend(*made, **words)))
    (result,) = results
    if not result.requires_grad:
        return forward, 0.0
    return forward, once_ms(functools.partial(torch.autograd.grad, result, made, torch.ones_like(result)))


def small() -> Figures:
    """Train the quickstart's model beside other processes that do the same: say when ready, and wait for a line."""
    engine, batch = engine_of(built(SMALL, FEW), "auto"), small_batch()
    timed(lambda: engine.step(batch, 1e-3), before=20)
    print("ready", flush=True)
    sys.stdin.readline()
    return {"ms": 1e3 * timed(lambda: engine.step(batch, 1e-3), 400 if GPU else 50)}


def _without_cudnn(case: Callable[[], Figures]) -> Figures:
    with cudnn_attention(False):
        return case()


CASES: dict[str, Callable[[], Figures]] = {
    "autocast first": functools.partial(replies, AUTOCAST, NARROW),
    "bfloat16 weights first": functools.partial(replies, NARROW, AUTOCAST),
    "replies without cuDNN": functools.partial(_without_cudnn, functools.partial(replies, AUTOCAST, NARROW)),
    "steps": steps,
    "steps without cuDNN": functools.partial(_without_cudnn, steps),
    "attention": attention,
    "small": small,
}


def main() -> None:
    """Measure the case that is named, and print it with the seconds that it took."""
    start = time.perf_counter()
    found = CASES[sys.argv[1]]()
    synchronise()
    print(json.dumps(found | {"s": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
