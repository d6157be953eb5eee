"""What a user's task breaks of the contract of tasks that only a drawn problem shows. The contract suites of
`showhow.testing` look at far more."""

from showhow.seeds import rng_for
from showhow.tasks import TASKS
from showhow.tasks.base import Problem, Task, TextFormat
from showhow.tasks.explain import Level, explain
from showhow.tasks.imported.task import Imported

_BUILT_IN = (*TASKS.values(), Imported)


def task_breach(task: Task) -> str | None:
    """Say what goes wrong when a problem of a task is drawn; None where nothing does, and of those built in."""
    if type(task) in _BUILT_IN:
        return None
    try:
        return _of_problem(task, task.draw(rng_for("check", task.identity))) or _of_numbers(task)
    except Exception as error:  # noqa: BLE001 - of a user's class, and said as its fault
        return f'a problem of the task "{task.kind}" cannot be made: {type(error).__name__}: {error}'


def _of_problem(task: Task, problem: object) -> str | None:
    layout = task.text_format
    if not isinstance(problem, Problem):
        return f'draw of the task "{task.kind}" must return a Problem, got {problem!r:.60}'
    if not isinstance(layout, TextFormat):
        return f'text_format of the task "{task.kind}" must be a TextFormat, got {layout!r:.60}'
    for level in (level for level in Level if level.has_steps):
        explain(problem, level, layout)
    if not task.answers:
        return f'answers of the task "{task.kind}" must not be empty'
    return None


def _of_numbers(task: Task) -> str | None:
    if not isinstance(task.largest_number, int):
        return f'largest_number of the task "{task.kind}" must be a whole number, got {task.largest_number!r}'
    if not isinstance(task.distinct_questions, int | None):
        return f'distinct_questions of the task "{task.kind}" must be a whole number or None'
    return None
