"""The journal: each event as one line of JSON, in the order in which it happened; everything else is derived from it.

Durability: every event is written to the operating system before `record` returns, so a killed process loses nothing.
Starts and ends are also forced to the disk (fsync), so a power cut loses at most the reports since the last one. A last
line that a crash cut off is removed when the journal is next opened, and saved in `NAME.cut`; a bad line anywhere else
is a `UserError`.

JSON has no NaN and no infinity. A metric may be one (a diverged loss is a finding), so metrics are written as the
strings "NaN", "Infinity" and "-Infinity" and read back. Elsewhere (params, facts, outcomes) they become null.

One process writes a journal at a time (a lock on the file, advisory, POSIX); any number may read it meanwhile.
"""

import dataclasses
import fcntl
import json
import logging
import math
import os
import threading
import types
from pathlib import Path
from typing import IO, Literal, cast, get_args, get_origin, get_type_hints

from showhow.errors import UserError, nearest
from showhow.fingerprint import Json
from showhow.tracking.tracker import Event, RepliesSampled, Reported

log = logging.getLogger("showhow")

_KINDS = {kind.__name__: kind for kind in get_args(Event)}
_TYPES = {name: get_type_hints(kind) for name, kind in _KINDS.items()}
_NOT_FORCED = (Reported, RepliesSampled)  # frequent, and a resumed run reports them again


class JsonlTracker:
    """Appends events to the journal at `path`, creating it and its folder. Safe to call from several threads.

    Raises UserError when the journal cannot be read (a corrupt line) or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        self._file = path.open("a+b")
        try:
            _lock(self._file, path)
            _repair(self._file, path)
        except UserError:
            self._file.close()
            raise
        if is_new:
            _force_folder(path.parent)

    def record(self, event: Event) -> None:
        """Append one event. Raises OSError when the disk is full or gone."""
        line = encode(event).encode("ascii") + b"\n"
        with self._mutex:
            self._file.write(line)
            self._file.flush()
            if not isinstance(event, _NOT_FORCED):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Force everything to the disk and close the file. A second call does nothing."""
        with self._mutex:
            if not self._file.closed:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()


def read_events(path: Path) -> list[Event]:
    """Return every complete event of the journal at `path`, oldest first; a journal that does not exist has none.

    A last line that a crash cut off is left out. Nothing on the disk changes, so a journal in use may be read.
    Raises UserError naming file and line for any other line that is not an event.
    """
    if not path.exists():
        return []
    return _parse(path.read_bytes(), path)[0]


def encode(event: Event) -> str:
    """Return an event as one line of ASCII JSON, without the newline."""
    fields: dict[str, object] = {
        "event": type(event).__name__,
        **{f.name: getattr(event, f.name) for f in dataclasses.fields(event)},
    }
    try:
        return json.dumps(fields, allow_nan=False, separators=(",", ":"))
    except ValueError:  # a float that JSON does not have: rare, so the values are converted only here
        if isinstance(fields.get("metrics"), dict):
            fields["metrics"] = {name: _metric_to_json(value) for name, value in fields["metrics"].items()}  # type: ignore[attr-defined]
        return json.dumps(_without_non_finite(fields), allow_nan=False, separators=(",", ":"))


def decode(line: str | bytes) -> Event:
    """Return the event in a line. Raises ValueError saying what is wrong with the line."""
    fields = json.loads(line)
    if not isinstance(fields, dict) or not isinstance(fields.get("event"), str):
        raise ValueError('not an object with an "event"')
    name = fields.pop("event")
    if name not in _KINDS:
        raise ValueError(f'unknown event "{name}".{nearest(name, _KINDS)} Allowed: {", ".join(_KINDS)}')
    if isinstance(fields.get("metrics"), dict):
        fields["metrics"] = {metric: _metric_from_json(value) for metric, value in fields["metrics"].items()}
    if different := fields.keys() ^ _TYPES[name].keys():
        raise ValueError(f"{name} has wrong fields: {', '.join(sorted(different))} missing or not allowed")
    for field, expected in _TYPES[name].items():
        if not _fits(fields[field], expected):
            raise ValueError(f"{name}.{field} is {fields[field]!r:.60}, which is not {expected}")
    return cast(Event, _KINDS[name](**fields))


def _parse(content: bytes, path: Path) -> tuple[list[Event], int]:
    """Return the events, and how many bytes of `content` they take; the rest is a line that a crash cut off."""
    events: list[Event] = []
    start = 0
    for number, line in enumerate(content.split(b"\n"), start=1):
        end = start + len(line)
        if line.strip():
            try:
                events.append(decode(line))
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                if not content[end:].strip():
                    return events, start
                raise _bad_line(path, number, str(error)) from error
            except ValueError as error:
                raise _bad_line(path, number, str(error)) from error
        start = end + 1
    return events, len(content)


def _bad_line(path: Path, number: int, problem: str) -> UserError:
    return UserError(
        f"{path}, line {number}: {problem}. Allowed: one event per line, as this version of ShowHow writes them. "
        "Do: put back the journal from a copy, delete that line, or start the study in another folder."
    )


def _repair(file: IO[bytes], path: Path) -> None:
    """Remove a partial last line (saving it in `NAME.cut`) and end the last complete one with a newline."""
    file.seek(0)
    content = file.read()
    _, complete = _parse(content, path)
    if rest := content[complete:]:
        with path.with_name(path.name + ".cut").open("ab") as cut:
            cut.write(rest + b"\n")
        log.warning(
            "%s: removed a last line that a crash had cut off (%d bytes, saved in %s.cut)", path, len(rest), path.name
        )
        file.truncate(complete)
    elif content and not content.endswith(b"\n"):
        file.write(b"\n")
    file.flush()


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{path}: another process is writing this journal. Allowed: one study at a time in a folder. "
            "Do: wait until the other one ends, or give this study another folder."
        ) from error
    except OSError as error:  # some network file systems have no locks
        log.warning("%s: could not be locked (%s); do not run two studies in one folder", path, error.strerror)


def _force_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut too (fsync(2): the folder needs its own call)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _metric_to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _metric_from_json(value: Json) -> Json:
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return float(value) if type(value) is int else value


def _without_non_finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_non_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fits(value: object, expected: object) -> bool:
    """Return whether `value` has the type `expected`; lists and dicts of floats are checked one level deep."""
    origin, inside = get_origin(expected), get_args(expected)
    if origin is Literal:
        return value in inside
    if origin is types.UnionType:
        return any(_fits(value, one) for one in inside)
    if origin is dict:
        return isinstance(value, dict) and (inside[1] is not float or all(map(_is_number, value.values())))
    if origin is list:
        return isinstance(value, list) and all(_fits(one, inside[0]) for one in value)
    if expected is float:
        return _is_number(value)
    return type(value) is expected


def _is_number(value: object) -> bool:
    return type(value) in (int, float)
