"""Answers questions with a study's model, exporting it on first use, or with an exported model by its folder."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from showhow.errors import UserError
from showhow.home.folder import StudyFolder, home_folder
from showhow.machines.vllm import how_to_get_vllm, vllm_python
from showhow.models.exported import EXPORTED, Exported
from showhow.tasks.asking import Answer, Question, Unasked, read_question
from showhow.tasks.base import Task


def predict(
    name: str, questions: Sequence[str], *, run: str | None = None, home: Path | str | None = None
) -> list[Answer | Unasked]:
    """Return a model's answers, one for each question, each with its grade where the task knows the right one.

    name: a study's, or the path of an exported folder; run: of a study, such as `trial-003/seed-1` (None: the best);
    home: the folder of all studies (None: SHOWHOW_HOME or showhow-runs). A question that the task or the model cannot
    read is `Unasked`, with the reason. Raises UserError when there is no such model, or none of the questions can be
    read."""
    texts = [questions] if isinstance(questions, str) else list(questions)
    return answers_to(home_folder() if home is None else Path(home).resolve(), name, run, texts, lambda _line: None)


def answers_to(
    home: Path, name: str, run: str | None, questions: Sequence[str], say: Callable[[str], None], by_vllm: bool = False
) -> list[Answer | Unasked]:
    """Return a model's answers, one for each question; questions that the task or the model cannot read are skipped.
    name: a study's in `home`, or the path of an exported folder; run: the key of the study's run (None: the best).
    `say` receives lines on progress.

    Raises UserError when there is no such model, or none of the questions can be read."""
    if not questions:
        raise UserError('no question was given; write one, or "-" and a question a line on standard input')
    if by_vllm and vllm_python() is None:
        raise UserError(how_to_get_vllm())
    folder = _model_folder(home, name, run, say)
    exported = Exported.read(folder)
    parsed = [_parsed(exported.trial.task, question) for question in questions]
    readable = [one for one in parsed if isinstance(one, Question)]
    answers: list[Answer | Unasked] = []
    if readable:
        trial = exported.trial
        say(f"asking {exported.run} of {exported.study} ({trial.task.kind}, {trial.arm})")
        from showhow.exports.answer import ask  # loads torch: a few seconds

        answers = ask(folder, exported, readable, by_vllm)
    remaining = iter(answers)
    found = [one if isinstance(one, Unasked) else next(remaining) for one in parsed]
    if all(isinstance(one, Unasked) for one in found):
        raise not_asked(found)
    return found


def not_asked(answers: Sequence[Answer | Unasked]) -> UserError:
    """Return the error for the questions that were not answered: which, why, and what is allowed."""
    why = {number: one.why for number, one in enumerate(answers, 1) if isinstance(one, Unasked)}
    if len(answers) == 1:
        return UserError(*why.values())
    lines = [f"question {number}: {reason}" for number, reason in why.items()]
    return UserError("\n".join([f"{len(why)} of {len(answers)} questions could not be answered", *lines]))


def _parsed(task: Task, typed: str) -> Question | Unasked:
    try:
        return read_question(task, typed)
    except UserError as error:
        return Unasked(typed, str(error))


def _model_folder(home: Path, name: str, run: str | None, say: Callable[[str], None]) -> Path:
    path = Path(name)
    if os.sep in name or (path / EXPORTED).exists():  # a study's name is no path
        if run is not None:
            raise UserError(f"{name} is the folder of one run; leave --run out, or name the study")
        return path
    folder = StudyFolder.existing(home, name)
    from showhow.home.export import Wish, export_run  # loads scipy

    return export_run(folder, Wish(run=run), say).folder
