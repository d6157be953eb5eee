"""The fast path of small models on CPUs; other packages import only the names listed here.

Llama and t5 models are trained and write replies here with a few compiled operations (native.cpp). The functions return
None for what this path does not support: an adapter, recomputed activations, partitioned weights, a GPU, another
architecture, a machine without a C++ compiler. The caller then uses transformers' own modules.
"""

from typing import Any

import torch

from showhow.training.cpu.llama_decoder import LlamaDecoder
from showhow.training.cpu.loss import lean_logits, lean_loss
from showhow.training.cpu.t5_decoder import T5Decoder
from showhow.training.replies.decoder import Decoder

__all__ = ["fast_decoder", "lean_logits", "lean_loss"]


def fast_decoder(model: torch.nn.Module, start: int) -> Decoder | None:
    """Return the fast decoder of a model, None where there is none; start: the first token of a T5's decoder."""
    found: Any = model
    if LlamaDecoder.reads(found):
        return LlamaDecoder(found)
    return T5Decoder(found, start) if T5Decoder.reads(found) else None
