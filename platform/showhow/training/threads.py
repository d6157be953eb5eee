"""The number of threads that torch uses in this process."""

import torch


def use_threads(count: int) -> None:
    """Let torch use `count` threads, so that concurrent runs do not compete for the processor."""
    torch.set_num_threads(count)
