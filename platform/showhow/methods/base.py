"""What a method is: how data become a model, as a pure program over a bench. Loads neither torch nor ray.

A method says what is done, the bench does it: in a trial's process with real models, in a test with fake ones
(`showhow.testing`). Each call of the bench is a stage: addressed by operation, version, settings and inputs, made once,
charged to every run that uses it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from showhow.methods.bench import Bench, Data, Model
from showhow.methods.row import Row
from showhow.tasks.explain import Level


@dataclass(frozen=True)
class Setup:
    """What a method may refuse: where it would be used. batching, batch_size: of the recipe."""

    level: Level
    batching: str
    batch_size: int
    has_encoder: bool | None  # None: not known before the model is loaded
    devices: int = 1
    batches: int | None = None  # that the budget pays for, were all spent on training; None: not known either


class Method(BaseModel):
    """A way of learning. A new one is a file in this folder, or a class in your own package (docs/add-a-method.md).

    It has a literal `kind`, a docstring and a `run`; its fields are the parameters that a study may set and search. It
    must be pure: what it does follows from its fields, the bench and the rows, so that stages can be reused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str

    source: ClassVar[str] = ""  # where it was published
    stages: ClassVar[tuple[str, ...]] = ()  # what it does, a few words each
    texts: ClassVar[tuple[str, ...]] = ()  # what it puts into prompts and targets, for tokenizers made for a study

    @property
    def is_control(self) -> bool:
        """True where it is there to be compared with, and not to be recommended."""
        return False

    def unfit(self, setup: Setup) -> Iterator[str]:  # noqa: ARG002 - others look
        """Say, a sentence each, why this method cannot be used so."""
        yield from ()

    def asked(self, row: Row) -> Row:
        """Return a problem as the trained model is asked it, in every evaluation split and when it is exported: the
        prompt that it reads, and as `target` the reply that is right. The question must stay."""
        return row

    def reads_as(self, level: Level) -> Level:
        """Return the level whose form the targets of `asked` have, by which replies are graded: `none` for a bare
        answer."""
        return level

    def prepare(self, bench: Bench) -> Data | None:
        """Make what all runs of an arm share: once, before they start, spread over the cluster. Data only: the bench
        refuses models here, since there is no seed yet. None stands for the task's problems."""
        return bench.problems()

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        """Do what one run does on its devices, and return a model of the bench, which is then graded on the test
        questions. prepared: what `prepare` returned, or the task's problems where that was None."""
        raise NotImplementedError
