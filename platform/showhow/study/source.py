"""A study file as a person wrote it: its values, the overrides, and where each setting stands, so that a mistake is
answered with file and line."""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showhow.errors import UserError, nearest
from showhow.sections.faults import Fault
from showhow.study.lines import key_lines
from showhow.study.search_space import named_axes
from showhow.tasks import IMPORTED
from showhow.tasks.imported.file import UNREAD, located

_MOST_BYTES = 1_000_000
_DEEPEST = 20  # sections within sections; a study has 4
_TOO_DEEP = "is nested too deeply; a study has sections and settings in them"
_TOO_LARGE = "is beyond the whole numbers of TOML, which are 64 bits wide"
_BELOW = 2**63  # whole numbers in TOML are 64 bits wide
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)")
_IN_OTHER_WORDS = {
    "Cannot overwrite a value": "this key is set twice",
    "Invalid value": "this is no value (text stands in quotes)",
}


@dataclass(frozen=True)
class Source:
    """A study file as read. `lines`: of each key; `options`: by the key that an option of the command line set, the
    option."""

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
        source.refuse(fault for fault in source.unusable() if fault.message in (_TOO_DEEP, _TOO_LARGE))
        return source

    def unusable(self) -> list[Fault]:
        """Find what TOML can say and no setting can be."""
        return list(_unusable(self.values))

    def located(self) -> list[Fault]:
        """Fill in where the files of an imported task and the folder of a model lie, the hash of the files' content,
        and what a file of DeepSpeed's settings says; return what cannot be read.

        A path in the study file begins at its folder, one of an option at the folder that the command was called in."""
        imported = [fault for key, table in _imports(self.values) for fault in self._locate(key, table)]
        self._locate_models()
        return imported + list(self._read_deepspeed())

    def _locate_models(self) -> None:
        """Make the names of models that are folders absolute: other processes work elsewhere."""
        for key, table, field in _model_names(self.values):
            folder, names = self._folder_of(key), table[field]
            several = names if isinstance(names, list) else [names]
            found = [str((folder / one).absolute()) if _is_folder(folder, one) else one for one in several]
            table[field] = found if isinstance(names, list) else found[0]

    def _folder_of(self, key: str) -> Path:
        return Path() if key in self.options else self.path.parent

    def _read_deepspeed(self) -> Iterator[Fault]:
        sharding = self.values.get("sharding")
        if isinstance(sharding, dict) and isinstance(sharding.get("deepspeed"), str):
            path = self._folder_of("sharding.deepspeed") / sharding["deepspeed"]
            try:
                sharding["deepspeed"] = _json_section(path)
            except UserError as error:
                sharding["deepspeed"] = None
                yield Fault("sharding.deepspeed", str(error))

    def _locate(self, key: str, table: dict[str, Any]) -> Iterator[Fault]:
        folder = self._folder_of(f"{key}.path")
        try:
            table.update(located(table, folder))
        except UserError as error:
            table["sha256"] = UNREAD
            yield Fault(f"{key}.path", str(error))

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
        """Raise UserError with all the faults, a line each, in the order of the file, if there are any."""
        placed = [(*self._place(fault.key), fault) for fault in dict.fromkeys(faults)]
        if placed:
            placed.sort(key=lambda entry: entry[0])
            raise UserError("\n".join(f"{where}: {_written(key, message)}" for _, where, (key, message) in placed))

    def _place(self, key: str) -> tuple[int, str]:
        """Return the line and the name of the place where a key, or the section around it, stands."""
        for name in _names(key.partition("[")[0]):
            if name in self.options:
                return 0, self.options[name]
            if name in self.lines:
                return self.lines[name], f"{self.path}:{self.lines[name]}"
        return 0, str(self.path)


def _imports(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables that name a file, the task's and those of splits that have another, with their places."""
    task, data = values.get("task"), values.get("data")
    if isinstance(task, dict) and task.get("kind") == IMPORTED:
        yield "task", task
        splits = data.get("eval_splits") if isinstance(data, dict) else None
        for name, table in splits.items() if isinstance(splits, dict) else ():
            if isinstance(table, dict) and "path" in table:
                yield f"data.eval_splits.{name}", table


def _model_names(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield where names of models stand: the setting, the table that has it, and its name there."""
    model, search = values.get("model"), values.get("search")
    if isinstance(model, dict) and "name" in model:
        yield "model.name", model, "name"
    axes = dict(named_axes(search)) if isinstance(search, dict) else {}
    axis = axes.get("model.name")
    if isinstance(axis, dict) and "grid" in axis:
        yield "search.model.name", axis, "grid"


def _is_folder(folder: Path, name: Any) -> bool:
    """True for what is a folder, or is written as none but a folder is."""
    return isinstance(name, str) and bool(name) and (name.startswith(("./", "../")) or (folder / name).is_dir())


def _json_section(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object, as DeepSpeed's own configurations are."""
    try:
        found = json.loads(path.read_bytes()[:_MOST_BYTES].decode("utf-8-sig"), parse_constant=_no_number)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Write a path from the study file on") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: must hold an object, such as {{}}, and not {json.dumps(found)[:40]}")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


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
        raise UserError(f"{path}: is larger than {_MOST_BYTES:,} bytes and no study; a study is a short text in TOML")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text ({error.reason}); save the file as UTF-8") from None


def _where(path: Path, text: str, fault: str) -> str:
    """Place tomllib's finding as all others are placed."""
    found = _PLACE.search(fault)
    line = found[1] or text.count("\n") + 1 if found else 1
    column = f" at column {found[2]}" if found and found[2] else ""
    what = _PLACE.sub("", fault)
    return f"{path}:{line}: is not valid TOML: {_IN_OTHER_WORDS.get(what, what)}{column}"


def _setting(change: str) -> tuple[str, Any]:
    """Read `recipe.batch_size=64`: the value is typed as in the file."""
    key, equals, text = change.partition("=")
    key, text = key.strip(), text.strip()
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UserError(f"--set {change}: write it as key=value, such as --set data.train_examples=2000")
    return key, typed(text)


def typed(text: str) -> Any:
    """Return what TOML makes of a value; a bare word is a text, as on every command line."""
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return values["value"] if len(values) == 1 else text


def _unusable(value: Any, key: str = "", depth: int = 0) -> Iterator[Fault]:
    """Find dates, numbers that are not finite or beyond 64 bits, and bottomless nesting."""
    if isinstance(value, dict | list):
        if depth == _DEEPEST:
            yield Fault(key, _TOO_DEEP)
            return
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            part = f".{name}" if isinstance(value, dict) else f"[{name}]"
            yield from _unusable(inner, f"{key}{part}".lstrip("."), depth + 1)
    elif isinstance(value, int) and not -_BELOW <= value < _BELOW:
        yield Fault(key, _TOO_LARGE)
    elif isinstance(value, float) and not math.isfinite(value):
        yield Fault(key, f"got {value}, must be a finite number")
    elif not isinstance(value, int | float | str):
        yield Fault(key, f"got {value}, a date or time, which no setting is; text stands in quotes")


def _names(key: str) -> Iterator[str]:
    """Yield the names under which a setting may stand, then those of the sections around it."""
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
