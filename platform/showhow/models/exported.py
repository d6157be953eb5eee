"""The description in the folder of an exported model (`showhow.json`), which is enough to prompt the model. Pure."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from showhow.errors import UserError
from showhow.sections.scalars import STRICT, Positive
from showhow.sections.trial import Trial
from showhow.tasks.base import TextFormat
from showhow.tasks.explain import Level

EXPORTED = "showhow.json"  # written last, so a folder with it is complete


class Exported(BaseModel):
    """The run that the weights are from, and how the model is prompted.

    layout: the text format of its replies, as its tokenizer can spell it. frame: the text that a chat template put
    before and after each prompt. asked_as: the text that the method put before and after each question to make a
    prompt. reply_tokens: length of the longest right reply to a test question, with the end token. as_adapter: the
    folder contains an adapter without its base."""

    model_config = STRICT

    format: Literal[1] = 1
    study: str
    run: str
    trial: Trial
    layout: TextFormat
    frame: tuple[str, str] | None
    asked_as: tuple[str, str] = ("", "")
    reply_tokens: Positive
    as_adapter: bool

    @property
    def level(self) -> Level:
        """The level whose form its replies have."""
        return self.trial.method.reads_as(self.trial.level)

    def prompt(self, question: str) -> str:
        """Return the prompt for a question, before a chat template frames it."""
        before, after = self.asked_as
        return before + question + after

    def write(self, folder: Path) -> None:
        """Write `showhow.json`; write it last."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False)
        (folder / EXPORTED).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Exported":
        """Read what `write` wrote. Raises UserError for a folder without it, and for a file of another version."""
        path = folder / EXPORTED
        try:
            return cls.model_validate_json(path.read_bytes(), strict=True)
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}). A model is asked by the name of its study, or by a folder "
                'that "showhow export" wrote'
            ) from None
        except ValidationError as error:
            raise UserError(
                f"{path} is not of this version of ShowHow ({error.error_count()} faults); export the run again"
            ) from None
