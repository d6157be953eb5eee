"""What the parts of `benchmarks.gpu` share: models, batches of random tokens, and how time and memory of a device are
measured. Without a GPU the sizes are tiny, so that the parts can be checked; their figures then mean nothing."""

import contextlib
import functools
import gc
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.utilisation import LLAMA_1B, PEAKS, T5_BASE
from showhow.sections.recipe import Recipe, ScratchModel
from showhow.training.batches import IGNORED, StepBatch
from showhow.training.engine import PlainEngine
from showhow.training.model import build_model, is_seq2seq
from showhow.training.tokens import SpecialTokens

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
TINY = {"hidden_size": 64, "layers": 2, "heads": 2, "mlp_size": 128}
LARGE = ScratchModel.model_validate(LLAMA_1B if GPU else LLAMA_1B | TINY)
T5 = ScratchModel.model_validate(T5_BASE if GPU else T5_BASE | TINY)
# The quickstart's.
SMALL = ScratchModel(
    architecture="llama", hidden_size=128, layers=2, heads=8, mlp_size=256, initializer_range=0.06, tie_embeddings=False
)
ROWS, LENGTH = (8, 2048) if GPU else (2, 32)
T5_ROWS, T5_LENGTH = (64, 512) if GPU else (2, 16)  # a question and a target each
MANY, FEW = 32_000 if GPU else 64, 32  # sizes of the large models' vocabulary and of the small one's
# Kinds of kernels by what their names hold; the first that fits counts.
GROUPS = {
    "attention": r"flash|fmha|attention|sdpa",
    "optimizer": r"multi_tensor|adam",
    "products": r"gemm|nvjet|cutlass|xmma|cublas",
    "copies and casts": r"copy|memcpy|memset|fill",
    "loss": r"softmax|nll",
    "index": r"index|gather|scatter|embedding|nonzero|scan|select|sort|radix",
    "reductions": r"reduce",
}


def special(vocabulary: int = MANY) -> SpecialTokens:
    """Return the token ids with a meaning."""
    return SpecialTokens(pad=0, end=1, start=None, vocabulary=vocabulary)


def built(spec: ScratchModel, vocabulary: int = MANY) -> torch.nn.Module:
    """Return a model made on the device itself, which for a large one takes a fiftieth of the time."""
    with torch.device(DEVICE):
        return build_model(spec, special(vocabulary), 0)


@functools.cache
def large_model() -> torch.nn.Module:
    """Return the model of about a billion parameters that the parts share."""
    return built(LARGE)


def recipe_of(rows: int = ROWS, precision: str = "bfloat16", steps: int = 1) -> Recipe:
    """Return a recipe of so many rows a step."""
    settings = {"batch_size": rows, "max_examples": rows * steps, "learning_rate": 1e-4, "precision": precision}
    return Recipe.model_validate(settings)


def engine_of(model: torch.nn.Module, precision: str = "bfloat16") -> PlainEngine:
    """Return an engine that trains a model, which it moves to the device."""
    made = PlainEngine(model, recipe_of(precision=precision))
    model.train()
    return made


def causal(rows: int, length: int, prompt: int = 0, vocabulary: int = MANY) -> StepBatch:
    """Return a causal model's batch of full rows of random tokens, the first `prompt` of each without a loss."""
    tokens = torch.randint(2, vocabulary, (rows, length))
    labels = tokens.clone()
    labels[:, :prompt] = IGNORED
    return StepBatch([{"input_ids": tokens, "labels": labels}], rows * length, rows * (length - max(prompt, 1)))


def padded(batch: StepBatch, has_mask: bool = True) -> StepBatch:
    """Return a causal batch with an eighth of its first row made padding. has_mask: say so to the model."""
    made = {name: tensor.clone() for name, tensor in batch.micro_batches[0].items()}
    rest = made["labels"].shape[1] * 7 // 8
    made["labels"][0, rest:] = IGNORED
    made["input_ids"][0, rest:] = 0
    if has_mask:
        made["attention_mask"] = torch.ones_like(made["input_ids"])
        made["attention_mask"][0, rest:] = 0
    return StepBatch([made], batch.tokens, int((made["labels"][:, 1:] != IGNORED).sum()))


def seq2seq(rows: int, length: int) -> StepBatch:
    """Return a batch of questions and targets of so many tokens each."""
    tokens = torch.randint(2, MANY, (rows, length))
    made = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
    return StepBatch([made], 2 * rows * length, rows * length)


def small_batch(has_mask: bool = True) -> StepBatch:
    """Return a batch of the quickstart's shape."""
    return padded(causal(16, 46, 12, FEW), has_mask)


@contextlib.contextmanager
def cudnn_attention(is_on: bool) -> Iterator[None]:
    """Let torch take cuDNN's kernels for attention, or leave it to its others."""
    was = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(is_on)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was)


def synchronise() -> None:
    """Wait for the device."""
    if GPU:
        torch.cuda.synchronize()


def clean() -> None:
    """Free what nobody uses, and measure the peak from here on."""
    gc.collect()
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float:
    """Return the most that torch's allocator gave out since `clean`."""
    return torch.cuda.max_memory_allocated() / 1e9 if GPU else 0.0


def used_mb() -> float:
    """Return how much of the GPU's memory is taken, by any process."""
    if not GPU:
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e6


def timed(step: Callable[[], object], times: int = 1, before: int = 3) -> float:
    """Return the mean seconds of a step after `before` unmeasured ones."""
    for _ in range(before):
        step()
    synchronise()
    start = time.perf_counter()
    for _ in range(times):
        step()
    synchronise()
    return (time.perf_counter() - start) / times


def once_ms(step: Callable[[], object]) -> float:
    """Return the milliseconds of a single step, as it comes."""
    return 1e3 * timed(step, before=0)


def step_figures(engine: PlainEngine, batch: StepBatch, times: int = 8) -> dict[str, float]:
    """Return the time of a training step, and the peak of memory in it."""
    clean()
    try:
        seconds = timed(lambda: engine.step(batch, 1e-4), times if GPU else 2)
    except torch.OutOfMemoryError:
        engine.model.zero_grad()
        return {"out of memory at GB": peak_gb()}
    start = time.perf_counter()
    engine.step(batch, 1e-4)
    queued = time.perf_counter() - start
    synchronise()
    has_encoder = is_seq2seq(engine.model)
    tokens = sum(part["input_ids"].numel() for part in batch.micro_batches) * (2 if has_encoder else 1)
    found = {
        "ms": 1e3 * seconds,
        "ms until step returned": 1e3 * queued,
        "tokens/s": tokens / seconds,
        "peak GB": peak_gb(),
    }
    device = torch.cuda.get_device_name() if GPU else ""
    peak = next((speed for known, speed in PEAKS.items() if known in device), None)
    if peak is not None:  # half of the weights of a T5 see each token
        found["MFU (6N)"] = engine.flops_per_token * (0.5 if has_encoder else 1) * tokens / seconds / peak
    return found


def waits(step: Callable[[], object]) -> dict[str, int]:
    """Return the lines where the host waited for the GPU, and how often."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    lines = [one for one in heard if "synchroniz" in str(one.message).lower()]
    return Counter(f"{Path(one.filename).name}:{one.lineno}" for one in lines)


def busy(step: Callable[[], object], longest: int = 12) -> dict[str, object]:
    """Return the GPU's own time in a step in ms, by kinds of kernels, and the kernels that took longest."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        step()
        synchronise()
    kernels = [
        (one.key, one.self_device_time_total / 1e3, one.count)
        for one in seen.key_averages()
        # torch's own notes, such as the optimizer's, span kernels.
        if "cuda" in str(one.device_type).lower() and one.self_device_time_total > 0 and "Optimizer." not in one.key
    ]
    sums = dict.fromkeys([*GROUPS, "elementwise"], 0.0)
    for name, milliseconds, _ in kernels:
        sums[_group(name)] += milliseconds
    kernels.sort(key=lambda one: -one[1])
    return {
        "busy ms": sum(one[1] for one in kernels),
        "kernels": sum(one[2] for one in kernels),
        "groups": sums,
        "longest": [(name[:90], *rest) for name, *rest in kernels[:longest]],
    }


def _group(kernel: str) -> str:
    fitting = (name for name, words in GROUPS.items() if re.search(words, kernel, re.IGNORECASE))
    return next(fitting, "elementwise")
