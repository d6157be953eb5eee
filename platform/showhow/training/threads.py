"""How many threads torch computes with in this process."""

import torch


def use_threads(count: int) -> None:
    """Compute with `count` threads, so that runs side by side do not fight for the processor."""
    torch.set_num_threads(count)
