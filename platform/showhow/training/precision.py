"""The type in which a model's matrix products are computed on a device."""

from typing import Literal

import torch

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def computing_type(precision: Literal["auto", "float32", "bfloat16", "float16"], device: torch.device) -> torch.dtype:
    """Return the computing type of a recipe's precision on a device."""
    if precision == "auto":
        return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    return _TYPES[precision]


def computes_in_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 matrix products run in hardware, so that they are faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = torch.backends.cpu.get_cpu_capability()
    return bool(flags.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported())
