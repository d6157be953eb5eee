"""The fast path of small models on CPUs, behind one door.

Llama and t5 models train and answer here by a few compiled operations (native.cpp). The rest of the house asks, and
gets None for what this path is not written for: an adapter, recomputed activations, shared-out weights, a GPU, another
architecture, a machine without a C++ compiler. Then it takes transformers' own modules.
"""

from typing import Any

import torch

from showhow.training.cpu.llama_decoder import LlamaDecoder
from showhow.training.cpu.loss import lean_logits, lean_loss
from showhow.training.cpu.t5_decoder import T5Decoder
from showhow.training.replies.decoder import Decoder

__all__ = ["fast_decoder", "lean_logits", "lean_loss"]


def fast_decoder(model: torch.nn.Module, start: int) -> Decoder | None:
    """Return what decodes a model's replies; start: the token that a T5's decoder begins with."""
    found: Any = model
    if LlamaDecoder.reads(found):
        return LlamaDecoder(found)
    return T5Decoder(found, start) if T5Decoder.reads(found) else None
