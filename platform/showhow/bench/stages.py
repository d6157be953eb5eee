"""Stages that make models: their folders, their costs, and claims to make one.

A stage is a folder named by its address. `stage.json` is written last, so its existence means that the stage is
finished; one without it is running or was interrupted, and its next claimant resumes it from its last checkpoint.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from showhow.datasets.atomic import atomic_file
from showhow.datasets.claims import Claim
from showhow.fingerprint import fingerprint
from showhow.methods.bench import Spent
from showhow.sections.scalars import STRICT
from showhow.training.ranks import agreed, rank

_RECORD = "stage.json"
_LOOK_SECONDS = 0.5
_WAIT, _OURS, _FINISHED = 0, 1, 2


class StageRecord(BaseModel):
    """A finished stage: its operation, settings, inputs, cost, and how many models it made."""

    model_config = STRICT

    operation: str
    settings: dict[str, Any]
    inputs: tuple[str, ...]
    examples: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    models: int = 1

    @property
    def spent(self) -> Spent:
        """The charge to every run that uses the stage."""
        return Spent(self.examples, self.tokens, self.flops)


class Stages:
    """The finished and unfinished stages of a home. The processes that train together call every method together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def address(self, operation: str, version: int, settings: dict[str, Any], inputs: tuple[str, ...]) -> str:
        """Return the address of a stage: a hash of what is computed, never of where, when or on how many devices."""
        return fingerprint({"operation": operation, "version": version, "settings": settings, "inputs": [*inputs]})

    def path(self, address: str) -> Path:
        """Return the folder of a stage."""
        return self._folder / address

    def model(self, address: str, number: int) -> Path:
        """Return the folder of one of the models that a stage made."""
        return self.path(address) / f"model-{number}"

    def finished(self, address: str) -> StageRecord | None:
        """Return the record of a finished stage; None for any other, and where the record is cut off."""
        try:
            return StageRecord.model_validate_json((self.path(address) / _RECORD).read_bytes(), strict=True)
        except (FileNotFoundError, ValidationError):
            return None

    def finish(self, address: str, record: StageRecord) -> None:
        """Mark a stage as finished; call it after all its files are written."""
        if rank() == 0:
            with atomic_file(self.path(address) / _RECORD) as partial:
                partial.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        agreed(0.0)  # no process reads it before it exists

    @contextmanager
    def claimed(self, address: str) -> Iterator[bool]:
        """Wait until a stage is finished or ours to make; yield whether it is ours."""
        with Claim(self.path(address)) as claim:
            # The first process polls for all of them: one long wait would look like a dead process.
            while (state := int(agreed(self._look(address, claim)))) == _WAIT:
                time.sleep(_LOOK_SECONDS)
            yield state == _OURS

    def _look(self, address: str, claim: Claim) -> int:
        if rank() > 0:
            return _WAIT
        if self.finished(address) is not None:
            return _FINISHED
        if not claim.attempt():
            return _WAIT
        return _OURS if self.finished(address) is None else _FINISHED
