"""The files that a study refers to: of imported tasks, of models (folders), of DeepSpeed's settings."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from showhow.errors import UserError
from showhow.kinds import are_named
from showhow.sections.faults import Fault
from showhow.study.search_space import named_axes
from showhow.tasks import IMPORTED
from showhow.tasks.imported.file import UNREAD, located

_MOST_BYTES = 1_000_000

Tables = Iterator[tuple[str, dict[str, Any]]]


def locate(values: dict[str, Any], folder_of: Callable[[str], Path]) -> Iterator[Fault]:
    """Fill in absolute paths, the hashes of imported files and the content of DeepSpeed's; yield what cannot be read.
    folder_of: the folder that a setting's path is relative to."""
    for key, table in _imports(values):
        try:
            table.update(located(table, folder_of(f"{key}.path")))
        except UserError as error:
            table["sha256"] = UNREAD
            yield Fault(f"{key}.path", str(error))
    for key, table, field in _model_names(values):  # absolute, for processes in other folders
        folder, names = folder_of(key), table[field]
        several = names if isinstance(names, list) else [names]
        found = [str((folder / one).absolute()) if _is_folder(folder, one) else one for one in several]
        table[field] = found if isinstance(names, list) else found[0]
    sharding = values.get("sharding")
    if isinstance(sharding, dict) and isinstance(sharding.get("deepspeed"), str):
        path = folder_of("sharding.deepspeed") / sharding["deepspeed"]
        try:
            sharding["deepspeed"] = _json_section(path)
        except UserError as error:
            sharding["deepspeed"] = None
            yield Fault("sharding.deepspeed", str(error))


def _tables(values: dict[str, Any], section: str) -> Tables:
    """Yield a section, or each of its variants, with its key."""
    table = values.get(section)
    if are_named(table):
        yield from ((f"{section}.{name}", inner) for name, inner in values[section].items())
    elif isinstance(table, dict):
        yield section, table


def _imports(values: dict[str, Any]) -> Tables:
    """Yield the tables that name a file, with their keys: the task's, and those of splits with another file."""
    tasks = [(key, table) for key, table in _tables(values, "task") if table.get("kind") == IMPORTED]
    yield from tasks
    data = values.get("data")
    splits = data.get("eval_splits") if isinstance(data, dict) and tasks else None
    for name, table in splits.items() if isinstance(splits, dict) else ():
        if isinstance(table, dict) and "path" in table:
            yield f"data.eval_splits.{name}", table


def _model_names(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the settings that name models: the key, the table that has it, and its name there."""
    search = values.get("search")
    axes = dict(named_axes(search)) if isinstance(search, dict) else {}
    for key, table in _tables(values, "model"):
        if "name" in table:
            yield f"{key}.name", table, "name"
        axis = axes.get(f"{key}.name")
        if isinstance(axis, dict) and "grid" in axis:
            yield f"search.{key}.name", axis, "grid"


def _is_folder(folder: Path, name: Any) -> bool:
    """True for an existing folder, or a name that is a relative path."""
    return isinstance(name, str) and bool(name) and (name.startswith(("./", "../")) or (folder / name).is_dir())


def _json_section(path: Path) -> dict[str, Any]:
    """Read a file with a JSON object, as in DeepSpeed's own configurations."""
    try:
        found = json.loads(path.read_bytes()[:_MOST_BYTES].decode("utf-8-sig"), parse_constant=_no_number)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Paths are relative to the study file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: must contain an object, such as {{}}, not {json.dumps(found)[:40]}")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a number")
