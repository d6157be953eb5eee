"""Where a study file's contents stand, so that a mistake is answered with file, line, what is allowed and the nearest
name."""

import json
import re
import tomllib
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from showhow.errors import UserError, nearest

_HEADER = re.compile(r"^\s*\[\s*([A-Za-z0-9_.\-\"' ]+?)\s*\]")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\-\"' ]+?)\s*=")


@dataclass(frozen=True)
class Source:
    """A study file as read: its values, and the line of each key. `changed` are the keys set by overrides."""

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]
    changed: frozenset[str]

    @classmethod
    def read(cls, path: Path, changes: Iterable[str] = ()) -> "Source":
        """Read a TOML file and apply overrides. Raises UserError when either cannot be read."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file.{_similar_file(path)}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({error}). A study is a UTF-8 text file in TOML.") from None
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path}: is not valid TOML: {error}. See https://toml.io for the notation.") from None
        source = cls(path, values, _lines_of(text), frozenset())
        return source._with(list(changes))

    def _with(self, changes: list[str]) -> "Source":
        values = json.loads(self.as_json())
        changed = set()
        for change in changes:
            key, equals, text = change.partition("=")
            key = key.strip()
            if not equals or not key:
                raise UserError(f"--set {change}: write it as key=value, such as --set data.train_examples=2000")
            *sections, last = key.split(".")
            table = values
            for section in sections:
                table = table.setdefault(section, {})
                if not isinstance(table, dict):
                    raise UserError(f"--set {change}: {section} is a value and not a section")
            table[last] = _typed(text.strip())
            changed.add(key)
        return Source(self.path, values, self.lines, frozenset(changed))

    def as_json(self) -> str:
        """Return the values as JSON text. Dates and times, which no field takes, become text."""
        return json.dumps(self.values, default=str)

    def fault(self, key: str, message: str) -> UserError:
        """Return the error for a key such as `recipe.batch_size`, with the line of the key or of the section around
        it."""
        where = key
        while where and where not in self.lines and where not in self.changed:
            where = where.rpartition(".")[0]
        if where in self.changed:
            return UserError(f"--set {key}: {message}")
        line = f":{self.lines[where]}" if where else ""
        return UserError(f"{self.path}{line}: {key}: {message}" if key else f"{self.path}{line}: {message}")

    def explain(self, error: ValidationError, model: type[BaseModel]) -> UserError:
        """Turn pydantic's findings into sentences, a line each, in the order of the file."""
        found = [self._explain_one(dict(item), model) for item in error.errors()]
        return UserError("\n".join(dict.fromkeys(str(fault) for fault in found)))

    def _explain_one(self, item: dict[str, Any], model: type[BaseModel]) -> UserError:
        location, owner = _follow(model, item["loc"])
        key = ".".join(location)
        if item["type"] == "extra_forbidden" and owner is not None:
            allowed = [name for name in owner.model_fields if name != "axes"]
            hint = nearest(location[-1], allowed)
            return self.fault(key, f"there is no such setting.{hint} Allowed: {', '.join(allowed)}")
        if item["type"] == "missing":
            return self.fault(key, f"is missing{_purpose(owner, location[-1])}")
        if item["type"].startswith("union_tag") and "expected_tags" in item.get("ctx", {}):
            tags = [tag.strip("'") for tag in item["ctx"]["expected_tags"].split(", ")]
            got = item["ctx"].get("tag")
            found = f'got "{got}".{nearest(str(got), tags)}' if got else "is missing."
            return self.fault(f"{key}.kind", f"{found} Allowed: {', '.join(tags)}")
        message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        if item["type"] == "value_error":
            return self.fault(key, message)
        return self.fault(key, f"got {_shown(item['input'])}, {message}")


def _follow(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[list[str], type[BaseModel] | None]:
    """Return the key that a pydantic location stands for (without the tags of unions) and the model that owns its last
    part."""
    key: list[str] = []
    owners: list[type[BaseModel]] = [model]
    owner: type[BaseModel] | None = model
    for part in location:
        tagged = [candidate for candidate in owners if _tag_of(candidate) == part]
        if tagged and len(owners) > 1:
            owners = tagged
            continue
        key.append(str(part))
        owner = owners[0] if owners else None
        field = owner.model_fields.get(str(part)) if owner else None
        if field is not None:
            owners = _models_in(field.annotation)
    return [part for part in key if part != "axes"], owner


def _tag_of(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("kind")
    if kind is None:  # an axis is known by its only field
        return next(iter(model.model_fields))
    return str(typing.get_args(kind.annotation)[0]) if typing.get_origin(kind.annotation) is Literal else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]


def _purpose(owner: type[BaseModel] | None, name: str) -> str:
    field = owner.model_fields.get(name) if owner else None
    if field is None or field.annotation is None:
        return ""
    kind = getattr(field.annotation, "__name__", str(field.annotation))
    return f": write {name} = ... ({kind})"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _typed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string, as on every command line


def _lines_of(text: str) -> dict[str, int]:
    """Return the 1-based line of each dotted key and section header of a TOML text; keys inside inline tables
    excepted."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header, key = _HEADER.match(line), _KEY.match(line)
        name = _plain(header.group(1)) if header else _plain(key.group(1)) if key else ""
        if header:
            section = name
        elif name:
            name = f"{section}.{name}" if section else name
        while name:
            lines.setdefault(name, number)
            name = name.rpartition(".")[0]
    return lines


def _plain(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def _similar_file(path: Path) -> str:
    folder = path.parent
    files = [str(file) for file in folder.glob("*.toml")] if folder.is_dir() else []
    return nearest(str(path), files) or (f" Studies there: {', '.join(sorted(files))}" if files else "")
