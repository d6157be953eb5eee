"""The catalogue of tasks: a new task is one file in this folder and one line in `TASKS`, or a registered class.

The tasks in `TASKS` draw their problems; `imported` reads them from a user's file, and has none without a file.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import ValidationError

from showhow.errors import UserError, nearest
from showhow.kinds import ByKind, Catalogue, literal_kind
from showhow.tasks.base import Task
from showhow.tasks.imported.file import located
from showhow.tasks.imported.task import Imported
from showhow.tasks.listops.task import ListOps
from showhow.tasks.modular_sum import ModularSum

TASKS: dict[str, type[Task]] = {"modular_sum": ModularSum, "listops": ListOps}
IMPORTED = "imported"
_REQUIRED = ("text_format", "draw", "solve", "answers", "largest_number", "distinct_questions", "example_question")
TASK_KINDS: Catalogue[Task] = Catalogue(Task, {**TASKS, IMPORTED: Imported}, "showhow.tasks", _REQUIRED)
AnyTask = Annotated[Task, ByKind(TASK_KINDS)]
AnyTasks = Annotated[Task | dict[str, Task], ByKind(TASK_KINDS, are_named=True)]


def task_named(name: str, changes: dict[str, Any]) -> Task:
    """Return the task of a kind ("listops") or of a preset ("listops-30"), with some parameters changed. The path of
    the kind "imported" is relative to the current folder.

    Raises UserError naming the nearest task for an unknown name, and every wrong parameter with what is allowed.
    """
    presets = {preset: kind for kind, task in TASK_KINDS.classes.items() for preset in task.presets}
    if name not in TASK_KINDS.classes and name not in presets and name not in TASK_KINDS.kinds:
        known = [*TASKS, *presets, *(kind for kind in TASK_KINDS.kinds if kind not in TASKS)]
        raise UserError(f'There is no task "{name}"; tasks and presets: {", ".join(known)}.{nearest(name, known)}')
    kind = TASK_KINDS.find(presets.get(name, name))
    values = located(changes, Path()) if name == IMPORTED else changes
    preset = {"preset": name} if name in presets else {}
    try:
        return kind.model_validate({**preset, **values})
    except ValidationError as error:
        raise UserError("\n".join(_sentences(kind, error))) from None


def _sentences(task: type[Task], error: ValidationError) -> list[str]:
    """Return a sentence for each fault: the parameter, what was got, what is allowed."""
    kind = literal_kind(task)
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
