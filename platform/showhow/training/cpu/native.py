"""The compiled operations of kernels.py: native.cpp, compiled for the processor it runs on, and called without copies.

The first process that needs it calls the machine's C++ compiler (2 seconds, once per machine: the result is cached in
the user's cache folder). Where there is no compiler, `compiled()` returns None, and models run by transformers' own
code.
"""

import ctypes
import functools
import hashlib
import itertools
import os
import platform
import stat
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from showhow.machines import machine

_SOURCE = Path(__file__).with_name("native.cpp")
_OPTIONS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
# On Linux torch loads its own OpenMP library, which the compiled library then uses.
_PARALLEL = ("-fopenmp",) if platform.system() == "Linux" else ()
_SUFFIXES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_MOST_SECONDS = 120


class Looking(ctypes.Structure):
    """How a layer attends: the struct of native.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "queries", "keys", "width", "first", "is_causal")),
        *((name, ctypes.c_int64) for name in ("query_stride", "key_stride")),
        ("scale", ctypes.c_float),
        ("turns", ctypes.c_void_p),
        ("turns_batch", ctypes.c_int64),
        ("added", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("added_batch", "added_head")),
    )


class Reading(ctypes.Structure):
    """How a new token attends to the cache: the struct of native.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "key_heads", "width", "places", "start", "tokens")),
        ("stride", ctypes.c_int64),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("turns", "begins", "ends", "added")),
        ("added_head", ctypes.c_int64),
    )


# The arguments of each function: sizes (i), numbers (f), addresses of tensors or None (p), structs (l, r).
_FUNCTIONS = {
    "norm": "iippfpp",
    "norm_backward": "iiiippppppp",
    "add": "ippp",
    "gathered": "iippp",
    "attention": "lppppp",
    "attention_backward": "lppppppppp",
    "remember": "iiiiiippippp",
    "read": "rpppp",
    "gate": "iipp",
    "gate_backward": "iippp",
    "entropy": "iippipp",
    "entropy_backward": "iippipfp",
}
_KINDS = {
    "i": ctypes.c_int64,
    "f": ctypes.c_float,
    "p": ctypes.c_void_p,
    "l": ctypes.POINTER(Looking),
    "r": ctypes.POINTER(Reading),
}


Argument = Tensor | ctypes.Structure | int | float | None


class Functions:
    """The functions of native.cpp: sizes and numbers are passed as they are, tensors by their address (their last
    dimension must have no gaps)."""

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        self._functions = {}
        for (name, kinds), (dtype, suffix) in itertools.product(_FUNCTIONS.items(), _SUFFIXES.items()):
            function = getattr(loaded, f"{name}_{suffix}")
            function.argtypes, function.restype = [_KINDS[kind] for kind in kinds], None
            self._functions[name, dtype] = function

    def __call__(self, name: str, dtype: torch.dtype, *arguments: Argument) -> None:
        """Call the function for matrix products in `dtype`: float32 or bfloat16."""
        self._functions[name, dtype](*(one.data_ptr() if isinstance(one, Tensor) else one for one in arguments))

    def norm(self, hidden: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return hidden states divided by their root mean square and times the weight, in `dtype`, and the inverses of
        the root mean squares. hidden, weight: float32."""
        result, scales = torch.empty(hidden.shape, dtype=dtype), torch.empty(hidden.shape[:-1])
        self("norm", dtype, scales.numel(), hidden.shape[-1], hidden, weight, epsilon, result, scales)
        return result, scales

    def add(self, hidden: Tensor, more: Tensor) -> Tensor:
        """Return the sum in float32, the type of `hidden`."""
        result, hidden = torch.empty(more.shape), hidden.contiguous()
        self("add", more.dtype, more.numel(), hidden, more, result)
        return result

    def gate(self, both: Tensor) -> Tensor:
        """Return silu(first half) times second half for each row."""
        size = both.shape[-1] // 2
        result = both.new_empty(*both.shape[:-1], size)
        self("gate", both.dtype, result.numel() // size, size, both, result)
        return result


def can_compute(dtype: torch.dtype) -> bool:
    """True if the operations are available for matrix products in `dtype`."""
    return dtype in _SUFFIXES and compiled() is not None


def needed() -> Functions:
    """Return the compiled operations; the caller has checked `can_compute`."""
    functions = compiled()
    if functions is None:
        raise RuntimeError("there is no C++ compiler to make the operations of native.cpp")
    return functions


@functools.cache
def compiled() -> Functions | None:
    """Return the compiled operations, or None where no compiler can compile them."""
    compiler = machine.compiler()
    if compiler is None:
        return None
    command = (compiler, *_OPTIONS, *_PARALLEL, str(_SOURCE))
    try:
        return Functions(_library(command))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: there is no home folder
        return None


def _library(command: tuple[str, ...]) -> Path:
    """Return the library, compiled if it is not in the cache. If several processes compile it at once, the last one's
    file remains. Raises PermissionError for a folder that others can write to, as its files are executed."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "showhow"
    key = hashlib.sha256(b"\0".join([_SOURCE.read_bytes(), " ".join(command).encode(), _processor()]))
    library = folder / f"native-{key.hexdigest()[:24]}.so"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} is open to others")
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            new = Path(partial) / library.name
            subprocess.run([*command, "-o", str(new)], check=True, capture_output=True, timeout=_MOST_SECONDS)
            new.replace(library)
    return library


def _processor() -> bytes:
    """Return a description that identifies the processor model: several machines may share a home folder."""
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return f"{platform.machine()} {platform.processor()}".encode()
    lines = described.read_bytes().split(b"\n\n")[0].splitlines()
    return b"\n".join(line for line in lines if line.split(b"\t")[0] in (b"model name", b"flags", b"Features"))
