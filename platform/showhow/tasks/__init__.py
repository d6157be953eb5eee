"""The catalogue of tasks: a new task is one file beside this one and one line in `TASKS` and in `AnyTask`."""

from typing import Annotated, Any

from pydantic import Field, ValidationError

from showhow.errors import UserError, nearest
from showhow.tasks.base import Task
from showhow.tasks.listops import ListOps
from showhow.tasks.modular_sum import ModularSum

TASKS: dict[str, type[Task]] = {"modular_sum": ModularSum, "listops": ListOps}
AnyTask = Annotated[ModularSum | ListOps, Field(discriminator="kind")]


def task_named(name: str, changes: dict[str, Any]) -> Task:
    """Return the task of a kind ("listops") or of a preset ("listops-30"), with some parameters changed.

    Raises UserError naming the nearest task for an unknown name, and every wrong parameter with what is allowed.
    """
    presets = {preset: kind for kind, task in TASKS.items() for preset in task.presets}
    if name not in TASKS and name not in presets:
        known = ", ".join([*TASKS, *presets])
        raise UserError(f'There is no task "{name}"; tasks and presets: {known}.{nearest(name, [*TASKS, *presets])}')
    kind = presets.get(name, name)
    preset = {"preset": name} if name in presets else {}
    try:
        return TASKS[kind].model_validate({**preset, **changes})
    except ValidationError as error:
        raise UserError("\n".join(_sentences(TASKS[kind], error))) from None


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
        elif name:
            sentences.append(f"{kind}: {name} = {fault['input']!r} is not allowed: {message[:1].lower()}{message[1:]}")
        else:
            sentences.append(f"{kind}: {message}")
    return sentences
