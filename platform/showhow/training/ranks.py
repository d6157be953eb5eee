"""The processes that train one model together: the rank of this one, and the values they exchange. A single process has
rank 0 of 1."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def rank() -> int:
    """Return this process's rank, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """Return the sum over all processes, which must all call this."""
    if world_size() == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total


def gathered(items: Sequence[Any]) -> list[Any]:
    """Return the complete list, in its order, of which each process passes its share by `dealt`; all must call this."""
    shares = from_all(list(items))
    complete: list[Any] = [None] * sum(map(len, shares))
    for number, share in enumerate(shares):
        complete[number :: world_size()] = share
    return complete


def from_all(mine: T) -> list[T]:
    """Return the value of each process, by rank; all must call this."""
    if world_size() == 1:
        return [mine]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, mine)
    return values


def dealt(items: Sequence[Any]) -> Sequence[Any]:
    """Return this process's share of a list: every world_size-th item, starting at its rank."""
    return items[rank() :: world_size()]


def agreed(mine: float) -> float:
    """Return the value of rank 0, for decisions that must be the same in all processes; all must call this."""
    return highest(mine if rank() == 0 else -math.inf)


def highest(mine: float) -> float:
    """Return the highest value of all processes; all must call this."""
    if world_size() == 1:
        return mine
    value = torch.tensor([mine], dtype=torch.float64)
    if distributed.get_backend() == "nccl":
        value = value.cuda()
    distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return float(value)


def is_shared_out(model: torch.nn.Module) -> bool:
    """True where a model's weights are partitioned over processes (ZeRO stage 3): they are gathered for each layer, so
    all processes must run the same layers."""
    return any(parameter.numel() == 0 for parameter in model.parameters())
