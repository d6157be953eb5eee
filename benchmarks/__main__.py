"""`make bench`: runs the benchmarks in their short form and prints one table.

`python -m benchmarks NAME ...` runs only those; `--full` runs the long form of those that have one."""

import argparse
import importlib
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Figure

NAMES = (
    "start_up",
    "generate_data",
    "load",
    "train",
    "large",
    "reply",
    "track",
    "trial_overhead",
    "train_start",
    "stopping",
    "sweep",
)


def main() -> None:
    """Run benchmarks, one after another, and print their table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--full", action="store_true", help="the long form: more sizes, more repetitions, minutes each")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"no benchmark is called {name}; there are {', '.join(NAMES)}")
    figures: list[Figure] = []
    for name in options.names or NAMES:
        print(f"{name} ...", flush=True)
        figures += importlib.import_module(f"benchmarks.{name}").figures(options.full)
    Console(width=None if Console().is_terminal else 140).print(_table(figures))


def _table(figures: Iterable[Figure]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("what")
    for header in ("ours", "unit", "spread", "peer", "times better", "limit", "share of limit"):
        table.add_column(header, justify="left" if header == "unit" else "right")
    for figure in figures:
        table.add_row(
            figure.name,
            _number(figure.ours),
            figure.unit,
            f"{figure.spread:.0%}",
            _number(figure.peer),
            "-" if figure.ratio is None else f"{figure.ratio:.2f}",
            _number(figure.limit),
            "-" if figure.share_of_limit is None else f"{figure.share_of_limit:.0%}",
        )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
