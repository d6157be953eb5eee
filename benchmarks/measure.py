"""How a figure of speed is taken: ours and the peer alternately, several times; the median, and the spread beside
it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One row of the table. `ours` and `peer` are medians, in `unit`; spread: (largest - smallest) / median of ours.
    `peer` or `limit` is None where there is none. Larger is better where `is_rate`."""

    name: str
    unit: str
    ours: float
    spread: float
    peer: float | None = None
    limit: float | None = None
    is_rate: bool = True

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer."""
        if self.peer is None:
            return None
        return self.ours / self.peer if self.is_rate else self.peer / self.ours


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternately(
    ours: Callable[[], object], peer: Callable[[], object] | None, repeats: int = 5
) -> tuple[list[float], list[float]]:
    """Return the seconds of each call, after one unmeasured call of both."""
    ours()
    if peer is not None:
        peer()
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        taken[0].append(seconds(ours))
        if peer is not None:
            taken[1].append(seconds(peer))
    return taken


def spread(values: list[float]) -> float:
    """Return (largest - smallest) / median."""
    return (max(values) - min(values)) / median(values)
