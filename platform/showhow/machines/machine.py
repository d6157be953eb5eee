"""What this machine has, read from the operating system: CPUs, GPUs, memory, bfloat16 support, the C++ compiler. No
library is loaded."""

import os
import shutil
from functools import cache
from pathlib import Path

# The memory limit of a container, in versions 2 and 1 of control groups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_COMPILERS = ("c++", "g++", "clang++")
_GPUS = Path("/proc/driver/nvidia/gpus")


def cpu_count() -> int:
    """Return the number of CPUs."""
    return os.cpu_count() or 1


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs that a process here may use, as their driver lists them."""
    found = len([*_GPUS.glob("*")])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    return min(found, sum(bool(name) and not name.startswith("-") for name in visible.split(",")))


@cache
def memory_bytes() -> int:
    """Return the memory of this machine, or of the container that this process runs in."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in map(Path, _LIMITS):
        try:
            found = min(found, int(path.read_text()))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return found


@cache
def computes_in_bfloat16() -> bool:
    """True where the processor multiplies bfloat16 numbers in hardware, which `precision = "auto"` then uses."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def compiler() -> str | None:
    """Return the path of a C++ compiler; None where there is none."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


def computes_narrow(precision: str, on_gpu: bool) -> bool:
    """True where a recipe's precision means 16-bit products here; `auto` does on every GPU."""
    if precision == "auto":
        return on_gpu or computes_in_bfloat16()
    return precision != "float32"
