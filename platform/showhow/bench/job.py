"""What the parts of a bench share: the run, its listeners, data, models and budget."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from showhow.bench.evaluations import Evaluations
from showhow.bench.models import Models
from showhow.bench.stages import Stages
from showhow.datasets.data_bench import DataBench
from showhow.datasets.dataset import Dataset
from showhow.datasets.prepare import tokens_of
from showhow.datasets.tokenizer import StudyTokenizer
from showhow.machines.assignment import Assignment, Note
from showhow.methods.bench import Spent
from showhow.metrics import TEST
from showhow.training.ranks import agreed, rank
from showhow.training.tokens import TokenFile

T = TypeVar("T")
Report = Callable[[dict[str, float]], None]


# Receives a stage that a run has used: operation, address, whether it existed already, its cost, and seconds.
HearStage = Callable[[str, str, bool, Spent, float], None]


def unheard(_kind: str, _examples: int, _text: str) -> None:
    """Ignore a note."""


def unseen(_operation: str, _address: str, _is_reused: bool, _spent: Spent, _seconds: float) -> None:
    """Ignore a stage."""


@dataclass(frozen=True)
class Listeners:
    """Receive the metrics, the notes and the stages of a run."""

    report: Report
    note: Note = unheard
    stage: HearStage = unseen


@dataclass
class Job:
    """One run on this process's devices."""

    run: Assignment
    listeners: Listeners
    data: DataBench
    stages: Stages
    words: StudyTokenizer
    evaluations: Evaluations
    models: Models
    _temporary: TemporaryDirectory[str] | None
    _files: dict[str, TokenFile] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Assignment, listeners: Listeners) -> "Job":
        """Open a run's files. Raises TrialError when they cannot be read."""
        temporary = None if run.home is not None else TemporaryDirectory(prefix="showhow-")
        home = run.home or Path(str(temporary and temporary.name))
        evaluations = Evaluations(run, listeners.note)
        return cls(
            run=run,
            listeners=listeners,
            data=DataBench(run.trial, home / "datasets", seed=run.seed),
            stages=Stages(home / "stages"),
            words=StudyTokenizer.read(run.tokenizer),
            evaluations=evaluations,
            models=Models(run, evaluations.files[TEST].special),
            _temporary=temporary,
        )

    def file(self, data: Dataset) -> TokenFile:
        """Return a dataset in the tokens of the run's model. Raises UserError where too many rows are too long."""
        if data.address not in self._files:
            self._files[data.address] = TokenFile(first_alone(lambda: tokens_of(data, self.run.trial, self.words)))
        return self._files[data.address]

    def charge(self, kind: str, spent: Spent) -> None:
        """Charge the run for a stage."""
        self.data.budget.charge(kind, spent)

    def made(self, operation: str, make: Callable[[], tuple[Dataset, ...]]) -> tuple[Dataset, ...]:
        """Make data in the first process, then open them in the others; and report the stage of each."""
        started = time.perf_counter()
        found = first_alone(make)
        seconds = (time.perf_counter() - started) / len(found)
        for data in found:
            self.listeners.stage(operation, data.address, data.is_reused, Spent(), seconds)
        return found


def first_alone(make: Callable[[], T]) -> T:
    """Make something in the first of the processes that train together, and then open it in the others."""
    made = make() if rank() == 0 else None
    agreed(0.0)
    return make() if made is None else made
