"""A study file as written: its values, the overrides, and the line of each setting, so that errors name file and
line."""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from numbers import Integral
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from showhow.errors import UserError, nearest
from showhow.kinds import are_named
from showhow.sections.faults import Fault
from showhow.study.lines import key_lines
from showhow.study.references import locate
from showhow.study.search_space import AXIS_KINDS, SearchSpace, named_axes
from showhow.study.variants import table_of, target

_MOST_BYTES = 1_000_000
_DEEPEST = 20  # sections within sections; a study has 4
_CHANGES = '{"recipe.batch_size": 32}'
_TOO_DEEP = "is nested too deeply; a study has sections and settings in them"
_TOO_LARGE = "is out of range: whole numbers in TOML have 64 bits"
_NO_TEXT = "is not UTF-8 text"
_UNREADABLE = (_TOO_DEEP, _TOO_LARGE, _NO_TEXT)  # such a study cannot be checked further
_BELOW = 2**63  # whole numbers in TOML have 64 bits
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)")
_INTERNAL_NAMES = re.compile(r" \('.*\)")
_REWORDED = {
    "Cannot overwrite a value": "this key is set twice",
    "Invalid value": "this is not a value (text needs quotes)",
    "Cannot mutate immutable namespace": "{ ... } cannot be added to (write a.grid = [...] and a.b.c = { ... })",
}


@dataclass(frozen=True)
class Source:
    """A study file as read. path: the file (of a study made in Python, the function); `lines`: the line of each key;
    `options`: the command-line option that set a key, by key."""

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]
    options: dict[str, str]

    @classmethod
    def read(cls, path: Path, changes: Iterable[str] = (), name: str | None = None) -> "Source":
        """Read a TOML file and apply overrides. Raises UserError when either cannot be read."""
        text = _text(path)
        try:
            values = tomllib.loads(text)
            source = cls(path, values, key_lines(text), {})
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{_where(path, text, str(error))}. See https://toml.io for the notation") from None
        except RecursionError:
            raise UserError(f"{path}: {_TOO_DEEP}") from None
        except ValueError as error:  # a number of thousands of digits
            raise UserError(f"{path}: cannot be read ({error})") from None
        for change in changes:
            source = source._with(f"--set {change}", *_setting(change))
        if name is not None:
            source = source._with(f"--name {name}", "name", name)
        source.refuse(fault for fault in source.unusable() if fault.message in _UNREADABLE)
        return source

    @classmethod
    def of(cls, what: str, sections: Mapping[str, Any]) -> "Source":
        """Read the sections of a study made in Python. what: named in errors in place of a file."""
        try:
            source = cls(Path(what), _plain(sections), {}, {})
        except RecursionError:
            raise UserError(f"{what}: {_TOO_DEEP}") from None
        source.refuse(fault for fault in source.unusable() if fault.message in _UNREADABLE)
        return source

    def unusable(self) -> list[Fault]:
        """Find values of TOML that no setting can have."""
        return list(_unusable(self.values))

    def located(self) -> list[Fault]:
        """Fill in the paths of imported files and model folders, the hashes of the files, and the content of a file of
        DeepSpeed's settings; return what cannot be read.

        Paths in the study file are relative to its folder, those in options to the working directory."""
        return list(locate(self.values, self._folder_of))

    def _folder_of(self, key: str) -> Path:
        return Path() if key in self.options else self.path.parent

    def changed(self, changes: Mapping[str, Any]) -> "Source":
        """Return the source with some settings changed; None removes one. An axis replaces the value of its field, as
        in a saved study every field has one."""
        if not isinstance(changes, Mapping):
            raise UserError(f"{self.path}: takes a mapping such as {_CHANGES}; got {changes!r}")
        if wrong := [key for key in changes if not (isinstance(key, str) and all(key.split(".")))]:
            raise UserError(f"{self.path}: settings have dotted names, as in {_CHANGES}; got {wrong[0]!r}")
        changes = Source.of(str(self.path), changes).values
        values: dict[str, Any] = _plain(self.values)
        search = values.get("search", {})
        axes = dict(named_axes(search))
        for key, value in sorted(changes.items(), key=lambda change: not _is_axis(change[0])):
            if _is_axis(key):
                name, axis = _axis_set(key.removeprefix("search.").removeprefix("recipe."), value)
                _put(axes, name, axis)
                if axis is not None:
                    _remove_target(values, name)
            else:
                _put(*_table_of(values, key), value)
        settings = {name: value for name, value in search.items() if name in SearchSpace.model_fields}
        values["search"] = {**settings, "axes": axes}
        return Source(self.path, values, self.lines, self.options)

    def _with(self, option: str, key: str, value: Any) -> "Source":
        """Return the source with one setting changed."""
        if option.encode(errors="replace").decode() != option:
            raise UserError(f"{option}: is not UTF-8 text")
        values = dict(self.values)
        table = values
        *sections, last = key.split(".")
        for section in sections:
            inner = table.get(section, {})
            if not isinstance(inner, dict):
                raise UserError(f"{option}: {section} is a value and not a section")
            table[section] = dict(inner)
            table = table[section]
        table[last] = value
        return Source(self.path, values, self.lines, {**self.options, key: option})

    def as_json(self) -> str:
        """Return the values as JSON text; dates, which `unusable` finds, as text."""
        return json.dumps(self.values, default=str)

    def refuse(self, faults: Iterable[Fault]) -> None:
        """Raise UserError with all faults, one per line, in the order of the file, if there are any."""
        placed = [(*self._place(fault.key), fault) for fault in dict.fromkeys(faults)]
        if placed:
            placed.sort(key=lambda entry: entry[0])
            raise UserError("\n".join(f"{where}: {_written(key, message)}" for _, where, (key, message) in placed))

    def _place(self, key: str) -> tuple[int, str]:
        """Return the line and the location of a key, or of the section around it."""
        for name in _names(key.partition("[")[0]):
            if name in self.options:
                return 0, self.options[name]
            if name in self.lines:
                return self.lines[name], f"{self.path}:{self.lines[name]}"
        axis = f"search.{key.partition('.')[0]}"  # a variant named only in the axis that picks it
        return self._place(axis) if axis in self.lines or axis in self.options else (0, str(self.path))


def _plain(value: Any) -> Any:
    """Return a value as in a study file: sections and tasks as tables, paths as text."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(inner) for inner in value]
    if isinstance(value, Integral) and not isinstance(value, int):  # of numpy
        return int(value)
    return str(value) if isinstance(value, PurePath) else value


def _is_axis(key: str) -> bool:
    section, _, name = key.partition(".")
    return section == "search" and name.partition(".")[0] not in SearchSpace.model_fields


def _remove_target(values: dict[str, Any], axis: str) -> None:
    """Remove what an axis is going to set."""
    place = target(axis)
    table = table_of(values, place)
    if place.field and table is not None:
        table.pop(place.field, None)
    elif not place.field and not are_named(values.get(place.section)):
        values.pop(place.section, None)


def _axis_set(axis: str, value: Any) -> tuple[str, Any]:
    """Return the axis that `learning_rate` or `learning_rate.log_uniform` names, and its complete new value."""
    name, _, kind = axis.rpartition(".")
    return (name, {kind: value}) if kind in AXIS_KINDS and value is not None else (axis, value)


def _table_of(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Return the table that contains a dotted name, made if it is missing, and the name in it."""
    *sections, last = key.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    return values, last


def _put(table: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        table.pop(name, None)
    else:
        table[name] = value


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file.{_similar_file(path)}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{path}: cannot be read ({reason}). A study is a text file in TOML") from None
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path}: is larger than {_MOST_BYTES:,} bytes; a study is a short text in TOML")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text ({error.reason}); save the file as UTF-8") from None


def _where(path: Path, text: str, fault: str) -> str:
    """Return tomllib's error with file and line."""
    found = _PLACE.search(fault)
    line = found[1] or text.count("\n") + 1 if found else 1
    column = f" at column {found[2]}" if found and found[2] else ""
    what = _INTERNAL_NAMES.sub("", _PLACE.sub("", fault))
    return f"{path}:{line}: is not valid TOML: {_REWORDED.get(what, what)}{column}"


def _setting(change: str) -> tuple[str, Any]:
    """Read `recipe.batch_size=64`: the value is typed as in the file."""
    key, equals, text = change.partition("=")
    key, text = key.strip(), text.strip()
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UserError(f"--set {change}: write it as key=value, such as --set data.train_examples=2000")
    return key, typed(text)


def typed(text: str) -> Any:
    """Parse a value as TOML; a bare word is text, as on every command line."""
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return values["value"] if len(values) == 1 else text


def _unusable(value: Any, key: str = "", depth: int = 0) -> Iterator[Fault]:
    """Find dates, numbers that are not finite or beyond 64 bits, and too deep nesting."""
    if isinstance(value, dict | list):
        if depth == _DEEPEST:
            yield Fault(key, _TOO_DEEP)
            return
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            part = f".{name}" if isinstance(value, dict) else f"[{name}]"
            yield from _unusable(inner, f"{key}{part}".lstrip("."), depth + 1)
    elif fault := _no_value(value):
        yield Fault(key, fault)


def _no_value(value: Any) -> str | None:
    if isinstance(value, int) and not -_BELOW <= value < _BELOW:
        return _TOO_LARGE
    if isinstance(value, float) and not math.isfinite(value):
        return f"got {value}, must be a finite number"
    if isinstance(value, str) and value.encode(errors="replace").decode() != value:
        return _NO_TEXT
    if isinstance(value, date | time):
        return f"got {value}, a date or time, which no setting is; text needs quotes"
    if isinstance(value, int | float | str | None):
        return None
    return f"got {value!r}, which no setting is; a setting is a number, text, true, false, a list or a table"


def _names(key: str) -> Iterator[str]:
    """Yield the names that a setting may have, then those of the sections around it."""
    while key:
        yield key
        if key.startswith("search."):
            yield key.replace("search.", "search.recipe.", 1)
        key = key.rpartition(".")[0]


def _written(key: str, message: str) -> str:
    return f"{key}: {message}" if key else message


def _similar_file(path: Path) -> str:
    folder = path.parent
    files = [str(file) for file in folder.glob("*.toml")] if folder.is_dir() else []
    return nearest(str(path), files) or (f" Studies there: {', '.join(sorted(files))}" if files else "")
