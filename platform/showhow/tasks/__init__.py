"""The catalogue of tasks: a new task is one file beside this one and one line in `TASKS` and in `AnyTask`.

`TASKS` are those that draw their problems; `imported` reads them from a user's file, and has no problem without one.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from showhow.errors import UserError, nearest
from showhow.tasks.base import Task
from showhow.tasks.imported.file import located
from showhow.tasks.imported.task import Imported
from showhow.tasks.listops.task import ListOps
from showhow.tasks.modular_sum import ModularSum

TASKS: dict[str, type[Task]] = {"modular_sum": ModularSum, "listops": ListOps}
IMPORTED = "imported"
AnyTask = Annotated[ModularSum | ListOps | Imported, Field(discriminator="kind")]


def task_named(name: str, changes: dict[str, Any]) -> Task:
    """Return the task of a kind ("listops") or of a preset ("listops-30"), with some parameters changed. The file of
    the kind "imported" is looked for from this folder on.

    Raises UserError naming the nearest task for an unknown name, and every wrong parameter with what is allowed.
    """
    presets = {preset: kind for kind, task in TASKS.items() for preset in task.presets}
    known = [*TASKS, *presets, IMPORTED]
    if name not in known:
        raise UserError(f'There is no task "{name}"; tasks and presets: {", ".join(known)}.{nearest(name, known)}')
    kind: type[Task] = Imported if name == IMPORTED else TASKS[presets.get(name, name)]
    values = located(changes, Path()) if name == IMPORTED else changes
    preset = {"preset": name} if name in presets else {}
    try:
        return kind.model_validate({**preset, **values})
    except ValidationError as error:
        raise UserError("\n".join(_sentences(kind, error))) from None


def _sentences(task: type[Task], error: ValidationError) -> list[str]:
    """Say each fault in a sentence: the parameter, what was got, what is allowed."""
    kind = task.model_fields["kind"].default
    sentences = []
    for fault in error.errors():
        name = ".".join(map(str, fault["loc"]))
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            parameters = [field for field in task.model_fields if field != "kind"]
            allowed = ", ".join(parameters)
            sentences.append(f'{kind} has no parameter "{name}"; it has {allowed}.{nearest(name, parameters)}')
        elif fault["type"] == "missing":
            sentences.append(f"{kind} has no {name} yet: set {name}=...")
        elif name:
            sentences.append(f"{kind}: {name} = {fault['input']!r} is not allowed: {message[:1].lower()}{message[1:]}")
        else:
            sentences.append(f"{kind}: {message}")
    return sentences
