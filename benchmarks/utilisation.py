"""The share of a device's peak that training reaches, for models as large as a GPU is for. Part of `large`."""

import time
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Figure, spread
from showhow.sections.recipe import Recipe, ScratchModel
from showhow.training.batches import StepBatch
from showhow.training.engine import PlainEngine
from showhow.training.model import build_model, is_seq2seq
from showhow.training.tokens import SpecialTokens

# Dense bfloat16, from the makers' data sheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
LLAMA_1B = {"hidden_size": 2048, "layers": 22, "heads": 16, "mlp_size": 5632, "architecture": "llama"}
T5_BASE = {"hidden_size": 768, "layers": 12, "heads": 12, "mlp_size": 3072, "architecture": "t5"}
# A model; rows, and tokens of each (a T5's question and target have as many).
GPU_SIZES = (("t5-base-sized", T5_BASE, 64, 512), ("llama 1B", LLAMA_1B, 8, 2048))


def utilisation(name: str, sizes: dict[str, Any], rows: int, length: int, steps: int = 10) -> Figure:
    """Return the floating-point operations a second of a step's matrix products, beside the device's peak (model FLOPs
    utilisation, Chowdhery et al., arXiv 2204.02311, appendix B): full rows of random tokens, the loss on all."""
    special = SpecialTokens(pad=0, end=1, start=None, vocabulary=32_000)
    model = build_model(ScratchModel.model_validate(sizes), special, 0)
    recipe = Recipe(batch_size=rows, max_examples=rows, learning_rate=1e-4, precision="bfloat16")
    engine = PlainEngine(model, recipe)
    tokens = torch.randint(2, special.vocabulary, (rows, length))
    micro_batch = {"input_ids": tokens, "labels": tokens}
    batch = StepBatch(
        [micro_batch | ({"attention_mask": torch.ones_like(tokens)} if is_seq2seq(model) else {})], 0, tokens.numel()
    )
    engine.model.train()
    with FlopCounterMode(display=False) as counter:
        engine.step(batch, 1e-4)
    taken = []
    for _ in range(steps):
        started = time.perf_counter()
        float(engine.step(batch, 1e-4)[0])  # waits for the device
        taken.append(time.perf_counter() - started)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = next((speed for known, speed in PEAKS.items() if known in device), None)
    reached = [counter.get_total_flops() / seconds / 1e12 for seconds in taken]
    return Figure(f"training {name}", "TFLOP/s", median(reached), spread(reached), limit=peak and peak / 1e12)
