"""The catalogue of tasks as text: each task, its parameters, and what a model is shown at each level. Pure."""

import tomllib
from collections.abc import Iterable
from typing import Any

from showhow.errors import UserError, nearest
from showhow.seeds import rng_for
from showhow.tasks import IMPORTED, TASK_KINDS, task_named
from showhow.tasks.base import Problem, Task
from showhow.tasks.explain import Level, render
from showhow.tasks.imported import task as imported


def gallery() -> str:
    """Return the complete catalogue as text."""
    return "\n\n".join(_imported() if kind == IMPORTED else _found(kind, found) for kind, found in TASK_KINDS.listed())


def _found(kind: str, found: type[Task] | UserError) -> str:
    """Return the entry of a task; for one with required parameters, their names."""
    if isinstance(found, UserError):
        return f"{kind}: {found}"
    needed = [name for name, field in found.model_fields.items() if field.is_required() and name != "kind"]
    if needed:
        return f"{kind}: {_summary(found)}\n\n  needs {', '.join(needed)}"
    return _entry(kind, found.model_validate({"kind": kind}))


def _summary(task: type[Task]) -> str:
    return (task.__doc__ or "").split("\n\n")[0].strip().replace("\n", " ")


def _imported() -> str:
    """Return the entry of imported tasks, from the docstring of the module, as there is no problem without a file."""
    task, text = imported.Imported, (imported.__doc__ or "").partition("\n\n")[2].strip()
    settings = {name: field for name, field in task.model_fields.items() if name not in ("kind", "sha256")}
    lines = [f"{IMPORTED}: {_summary(task)}", "", '  path = "your-file.jsonl"']
    lines += [f"  {name} = {field.default!r}" for name, field in settings.items() if not field.is_required()]
    lines += ["", *(f"  {line}".rstrip() for line in text.splitlines())]
    return "\n".join([*lines, "", f"  See your own rows: showhow explain {IMPORTED} --set path=your-file.jsonl"])


def _entry(kind: str, task: Task) -> str:
    lines = [f"{kind}: {_summary(type(task))}", ""]
    lines += [f"  {name} = {value!r}" for name, value in task.model_dump(exclude={"kind"}).items()]
    if task.presets:
        lines.append(f"  presets: {', '.join(task.presets)}")
    lines += [f"  {len(task.answers)} possible answers: chance is {task.chance:.1%}", ""]
    problem, other = _drawn(task, 0), _drawn(task, 1)
    lines.append(f"  question   {problem.question}")
    for level in Level:
        first, *rest = _target(task, problem, other, level).splitlines()
        lines += [f"  {level.value:<10} {first}", *(" " * 13 + line for line in rest)]
    return "\n".join(lines)


def shown(name: str, level: str, question: str | None, seed: int, changes: Iterable[str]) -> list[str]:
    """Return what a model is shown at a level: the target of a typed question, or a drawn question and its target.

    Raises UserError for an unknown task, level or parameter, and for a question that cannot be read."""
    task = task_named(name, dict(_setting(change) for change in changes))
    try:
        wanted = Level(level)
    except ValueError:
        allowed = [one.value for one in Level]
        raise UserError(f'there is no level "{level}".{nearest(level, allowed)} Levels: {", ".join(allowed)}') from None
    problem = task.solve(question) if question is not None else _drawn(task, seed)
    target = _target(task, problem, _drawn(task, seed + 1), wanted)
    return [target] if question is not None else [problem.question, target]


def _drawn(task: Task, seed: int) -> Problem:
    return task.draw(rng_for("gallery", task.identity, seed))


def _target(task: Task, problem: Problem, other: Problem, level: Level) -> str:
    return render(problem, level, task.text_format, Level.LONG, other)


def _setting(change: str) -> tuple[str, Any]:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {change}: write it as key=value, such as --set terms=4")
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no value in TOML's notation: a bare word
        values = {}
    return key.strip(), values["value"] if len(values) == 1 else text.strip()
