"""Asks the model of a study, which is exported when it is first asked, or an exported model by its folder."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from showhow.errors import UserError
from showhow.study.exported import EXPORTED, Exported
from showhow.tasks.asking import Answer, read_question
from showhow.tuning.folder import StudyFolder


def answers_to(
    home: Path, name: str, run: str | None, questions: Sequence[str], say: Callable[[str], None]
) -> list[Answer]:
    """Return a model's answers. name: a study's in `home`, or the path of an exported folder; run: of a study, the key
    of the run to ask (None: the best). `say` takes a line about what takes time.

    Raises UserError when there is no such model, and for a question that the task or the model cannot read."""
    if not questions:
        raise UserError('no question was given; write one, or "-" and a question a line on standard input')
    folder = _model_folder(home, name, run, say)
    exported = Exported.read(folder)
    asked = [read_question(exported.trial.task, question) for question in questions]
    level = exported.trial.level
    say(f"asking {exported.run} of {exported.study} ({exported.trial.task.kind}, level {level})")
    from showhow.methods.answer import ask  # loads torch: a few seconds

    return ask(folder, exported, asked)


def _model_folder(home: Path, name: str, run: str | None, say: Callable[[str], None]) -> Path:
    path = Path(name)
    if os.sep in name or (path / EXPORTED).exists():  # a study's name is no path
        if run is not None:
            raise UserError(f"{name} is the folder of one run; leave --run out, or name the study")
        return path
    folder = StudyFolder.existing(home, name)
    from showhow.tuning.exported import Wish, export_run  # loads scipy

    return export_run(folder, Wish(run=run), say).folder
