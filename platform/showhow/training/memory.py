"""How this process keeps memory: what one step freed is there for the next."""

import ctypes
import platform

# Options of mallopt(3) in glibc, and the largest values it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_TRIM, _LARGEST_MMAP = 2**31 - 1, 32 * 2**20


def keep_freed_memory() -> None:
    """Let the C library keep what is freed rather than give it back to the system.

    By default it gives back blocks of a megabyte at once, depending on how they happen to lie: in some processes each
    step of a small model took 1,400 page faults, and 22 ms rather than 17. Without effect where the C library is not
    glibc."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP)
        library.mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM)
