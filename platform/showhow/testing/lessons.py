"""Batches and cost of training in memory: full batches that do not exceed the remaining budget, as on a real bench."""

from collections.abc import Iterator
from itertools import count, islice

from showhow.errors import TrialError
from showhow.methods.bench import Spent
from showhow.methods.losses import Loss, Mixup
from showhow.sections.budget import Allowance
from showhow.seeds import rng_for
from showhow.testing.fakes import FakeData

Batch = list[int]  # the numbers of its rows


def batches(data: FakeData, loss: Loss, batch_size: int, seed: int) -> Iterator[Batch]:
    """Yield batches endlessly: each pass over the rows has a new order; for mixed pairs half of a batch is from each
    part. Raises TrialError where rows cannot be paired."""
    if not isinstance(loss, Mixup):
        stream = _endless(range(len(data)), seed, "order")
        while True:
            yield [*islice(stream, batch_size)]
    names = list(dict.fromkeys(row.part for row in data.rows()))
    if batch_size % 2 or len(names) != 2:
        raise TrialError(
            f"pairs need two parts of a mix, half of a batch from each; got {len(names)} parts "
            f"({', '.join(names)}) and a batch of {batch_size}"
        )
    parts = [[number for number, row in enumerate(data.rows()) if row.part == name] for name in names]
    first, second = (_endless(part, seed, name) for part, name in zip(parts, names, strict=True))
    while True:
        yield [*islice(first, batch_size // 2), *islice(second, batch_size // 2)]


def _endless(rows: range | Batch, seed: int, name: str) -> Iterator[int]:
    for epoch in count():
        order = [*rows]
        rng_for(name, seed, epoch).shuffle(order)
        yield from order


def cost(
    data: FakeData, stream: Iterator[Batch], budget: Allowance, wanted: float | None, flops_per_token: float
) -> Spent:
    """Return the cost of training on as many full batches as exceed neither the budget left nor the wanted examples
    (below 1 a share of the total budget). Raises TrialError where less than one batch remains."""
    room, most = budget.room(wanted)
    spent = Spent()
    for batch in stream:
        tokens = sum(data.tokens[row] for row in batch)
        more = spent + Spent(len(batch), tokens, tokens * flops_per_token)
        if more.of(budget.unit) > room or more.examples > most:
            break
        spent = more
    if not spent.examples:
        raise TrialError(
            f"the budget of {budget.amount:,.6g} {budget.unit} leaves {max(room, 0):,.6g}, which is less than one "
            "batch; raise the amount, or spend less of it in earlier stages"
        )
    return spent
