"""`make bench`: runs every benchmark in its short form and prints one table."""

from rich.console import Console
from rich.table import Table

from benchmarks import generate_data, reply, start_up


def main() -> None:
    """Run all benchmarks, one after another."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for header in ("what", "ours", "unit", "spread", "peer", "times better", "limit"):
        table.add_column(header)
    for module in (start_up, generate_data, reply):
        for figure in module.figures():
            table.add_row(
                figure.name,
                f"{figure.ours:,.3g}",
                figure.unit,
                f"{figure.spread:.0%}",
                "-" if figure.peer is None else f"{figure.peer:,.3g}",
                "-" if figure.ratio is None else f"{figure.ratio:.1f}",
                "-" if figure.limit is None else f"{figure.limit:,.3g}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
