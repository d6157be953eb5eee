"""The command `verdict`, which judges a file of graded answers: parse, call, print."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from showhow.errors import UserError

if TYPE_CHECKING:
    import pandas

_DONE = 0
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_DESCRIPTION = """Judge a table of graded answers, from any trainer: a row per run and question, with the columns
arm, seed, question and right (true or false, 1 or 0), and optionally setting, trial, is_control, validation, examples,
tokens and flops."""


def add_verdict_command(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command."""
    verdict = add_parser("verdict", help="judge a table of graded answers, from any trainer", description=_DESCRIPTION)
    verdict.add_argument("file", type=Path, help="a .csv, .tsv or .parquet file")
    verdict.add_argument("--chance", type=float, default=0.0, help="share right by uniform guessing (default: 0)")
    verdict.add_argument("--json", action="store_true", help="as JSON, for scripts")
    verdict.set_defaults(command=_verdict)


def _verdict(chosen: argparse.Namespace) -> int:
    file: Path = chosen.file
    table = read_file(file)
    from showhow.evidence.table import result_table
    from showhow.evidence.verdict import verdict

    try:
        result = verdict(table, chosen.chance)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if chosen.json:
        print(result.model_dump_json(indent=2))
        return _DONE
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(result_table(result, file.name))
    console.print()
    for sentence in result.conclusion:
        console.print(sentence)
    return _DONE


def read_file(file: Path) -> "pandas.DataFrame":
    """Return the table in a file. Raises UserError where there is none or it cannot be read."""
    kind = file.suffix.lower()
    if kind not in (*_SEPARATORS, ".parquet"):
        raise UserError(f"{file}: a table is a .csv, .tsv or .parquet file; got {kind or 'a name without an ending'}")
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    import pandas  # takes half a second
    import pyarrow

    try:
        if kind == ".parquet":
            return pandas.read_parquet(file)
        # an arm may be called None or NA: only an empty cell is no value
        return pandas.read_csv(file, sep=_SEPARATORS[kind], dtype=str, keep_default_na=False, na_values=[""])
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{file} cannot be read as {kind}: {error}") from None
