"""How long the command takes before it does anything: a person waits for it each time. The limit is Python's own
start."""

import subprocess
import sys
from statistics import median

from benchmarks.measure import Figure, alternately, spread

STUDY = "search_spaces/quickstart.toml"


def figures(full: bool = False) -> list[Figure]:
    """Time `showhow --help` and `showhow check` beside an empty Python process."""
    found = []
    for name, arguments in (("showhow --help", ["--help"]), ("showhow check", ["check", STUDY])):
        ours, python = alternately(
            lambda arguments=arguments: _run("-m", "showhow.cli", *arguments), lambda: _run("-c", "pass"), repeats=7
        )
        found.append(Figure(name, "s", median(ours), spread(ours), limit=median(python), is_rate=False))
    return found


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
