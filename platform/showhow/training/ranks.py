"""Which of the processes that train one model together this one is, and what they tell each other. Alone it is the
first of one."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def rank() -> int:
    """Return this process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """Return the sum over all processes, which must all ask for it."""
    if world_size() == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total


def gathered(items: Sequence[Any]) -> list[Any]:
    """Return what each process dealt itself of a list by `dealt`, in the order of the whole; all must ask for it."""
    hands = said_by_all(list(items))
    whole: list[Any] = [None] * sum(map(len, hands))
    for number, hand in enumerate(hands):
        whole[number :: world_size()] = hand
    return whole


def said_by_all(mine: T) -> list[T]:
    """Return what each process says, by rank; all must ask for it."""
    if world_size() == 1:
        return [mine]
    said: list[Any] = [None] * world_size()
    distributed.all_gather_object(said, mine)
    return said


def dealt(items: Sequence[Any]) -> Sequence[Any]:
    """Return this process's share of a list: every world_size-th item, from its rank on."""
    return items[rank() :: world_size()]


def agreed(mine: float) -> float:
    """Return the first process's value, for decisions that all must take alike; all must ask for it."""
    return highest(mine if rank() == 0 else -math.inf)


def highest(mine: float) -> float:
    """Return the highest of all processes' values; all must ask for it."""
    if world_size() == 1:
        return mine
    value = torch.tensor([mine], dtype=torch.float64)
    if distributed.get_backend() == "nccl":
        value = value.cuda()
    distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return float(value)


def is_shared_out(model: torch.nn.Module) -> bool:
    """True where processes hold parts of a model's weights (ZeRO stage 3): these are gathered for each layer, so all
    must run the same ones."""
    return any(parameter.numel() == 0 for parameter in model.parameters())
