"""What this machine has, asked of the system alone: CPUs, memory, whether it computes in bfloat16. Nothing is loaded
for it."""

import os
from functools import cache
from pathlib import Path

# The limit of a container, by the second and the first version of control groups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def cpu_count() -> int:
    """Return the number of CPUs."""
    return os.cpu_count() or 1


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
    """True where the processor has products of bfloat16 numbers, in which `precision = "auto"` then computes."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
