"""How a figure of speed is taken: ours and the peer alternately, several times; the median, and the spread beside
it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

REPEATS = 5


@dataclass(frozen=True)
class Figure:
    """One row of the table. `ours`, `peer` and `limit` are in `unit`, the first two medians; spread: (largest -
    smallest) / median of ours. limit: what this machine could do at best, by arithmetic or by measuring the part that
    cannot be avoided (docs/performance.md says which). `peer` or `limit` is None where there is none. Larger is better
    where `is_rate`."""

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
        return None if self.peer is None else self._times_better(self.peer)

    @property
    def share_of_limit(self) -> float | None:
        """How much of what is possible was reached: 1 is all of it."""
        return None if self.limit is None else self._times_better(self.limit)

    def _times_better(self, other: float) -> float:
        return self.ours / other if self.is_rate else other / self.ours


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternately(
    ours: Callable[[], object], peer: Callable[[], object] | None, repeats: int = REPEATS
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


def run_python(*arguments: str, **settings: str) -> str:
    """Run Python in a process of its own, with variables set in its environment; return what it printed."""
    environment = os.environ | settings
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, env=environment)
    return done.stdout
