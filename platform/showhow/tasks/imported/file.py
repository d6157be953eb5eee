"""Reads the rows of a file that a user brings: JSON Lines or Parquet. The one place where a task touches the disk.

What a row must hold is the business of `imported.py`.
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
    """One row and its number (1: the first line of the file, or the first row of a Parquet file). `fault` says why it
    cannot be read, `detail` where; it is empty where `values` are the row's columns."""

    number: int
    values: dict[str, Any]
    fault: str = ""
    detail: str = ""


def located(parameters: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a task's parameters with the path made absolute (a relative one begins at `folder`) and the hash of what
    lies there.

    Raises UserError when no file that can be read is there, or one of another content than the parameters name."""
    if not isinstance(parameters.get("path"), str):
        return {"sha256": UNREAD, **parameters}  # what is wrong is said when the parameters are checked
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
    """Return all rows of a file, in its order; blank lines are none.

    Raises UserError when the file is gone, its content is no longer the one named, or it is no table at all."""
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
        # Numbers stay as they are written: 4.50 is an answer other than 4.5.
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
    import pyarrow as pa  # takes 0.2 s to load, and only a Parquet file needs it
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(pa.BufferReader(content)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: is no Parquet file that can be read ({str(error).splitlines()[0]})") from None
    return (Line(number, values) for number, values in enumerate(rows, start=1))
