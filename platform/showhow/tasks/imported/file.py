"""Reads the rows of a user's file: JSON Lines or Parquet. Only here does a task read from disk.

`rows.py` checks what a row must contain.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from showhow.errors import UserError, nearest
from showhow.fingerprint import file_sha256

UNREAD = "0" * 64  # the hash of a file that could not be read
_JSON, _PARQUET = (".jsonl", ".ndjson", ".json"), (".parquet",)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One row and its number (1: the first line of the file, or the first row of a Parquet file). `values` are the
    row's columns. If the row cannot be read, `fault` says why and `detail` where; else both are empty."""

    number: int
    values: dict[str, Any]
    fault: str = ""
    detail: str = ""


def located(parameters: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a task's parameters with an absolute path (a relative one starts at `folder`) and the hash of the file.

    Raises UserError when there is no readable file, or one with another content than the parameters name."""
    if not isinstance(parameters.get("path"), str):
        return {"sha256": UNREAD, **parameters}  # the check of the parameters reports what is wrong
    path = (folder / parameters["path"]).absolute()
    if path.suffix.lower() not in (*_JSON, *_PARQUET):
        raise UserError(
            f"{path}: a dataset is imported from JSON Lines ({', '.join(_JSON)}: an object a line) or from Parquet "
            f"(.parquet); convert this file to one of them"
        )
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).{_similar(path)}") from None
    if parameters.get("sha256", sha256) != sha256:
        raise UserError(
            f"{path}: has other content (sha256 {sha256}) than the one asked for (sha256 {parameters['sha256']}); "
            "bring that file back, or leave sha256 out"
        )
    return parameters | {"path": str(path), "sha256": sha256}


def _similar(path: Path) -> str:
    files = [str(file) for file in path.parent.glob("*") if file.suffix.lower() in (*_JSON, *_PARQUET)]
    return nearest(str(path), files) or (f" Files there: {', '.join(sorted(files)[:5])}" if files else "")


def read_lines(path: str, sha256: str) -> list[Line]:
    """Return all rows of a file, in its order, without blank lines.

    Raises UserError when the file is missing, has another hash than `sha256`, or is not a table."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); put the file back where it was") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path}: has changed since the study was read; start again, under a new name (--name)")
    return list(_parquet_rows(path, content) if path.lower().endswith(_PARQUET) else _json_lines(content))


def _json_lines(content: bytes) -> Iterator[Line]:
    for number, line in enumerate(content.removeprefix(_BYTE_ORDER_MARK).split(b"\n"), start=1):
        if line.strip():
            yield _json_line(number, line)


def _json_line(number: int, line: bytes) -> Line:
    try:
        # Numbers keep their written form: 4.50 is not the same answer as 4.5.
        values = json.loads(line.decode(), parse_int=str, parse_float=str)
    except UnicodeDecodeError as error:
        return Line(number, {}, "is not UTF-8 text", f" ({error.reason} at byte {error.start + 1} of the line)")
    except json.JSONDecodeError as error:
        return Line(number, {}, "is no JSON in one line", f" ({error.msg} at column {error.colno})")
    except RecursionError:
        return Line(number, {}, "is nested too deeply")
    if not isinstance(values, dict):
        return Line(number, {}, 'is no JSON object; a row is written {"question": "...", "steps": [...], "answer": 4}')
    return Line(number, values)


def _parquet_rows(path: str, content: bytes) -> Iterator[Line]:
    import pyarrow as pa  # takes 0.2 s to import, and only Parquet files need it
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(pa.BufferReader(content)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: is no Parquet file that can be read ({str(error).splitlines()[0]})") from None
    return (Line(number, values) for number, values in enumerate(rows, start=1))
