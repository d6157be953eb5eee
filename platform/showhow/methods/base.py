"""The base class of methods: how data become a model, as a pure program over a bench. Loads neither torch nor ray.

A method calls the bench, which does the work: in a trial's process with real models, in a test with fake ones
(`showhow.testing`). Each call is a stage: addressed by operation, version, settings and inputs, made once, and charged
to every run that uses it.
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
    """Where a method would be used, which it may refuse. batching, batch_size: of the recipe."""

    level: Level
    batching: str
    batch_size: int
    has_encoder: bool | None  # None: not known before the model is loaded
    devices: int = 1
    batches: int | None = None  # if all the budget is spent on training; None: not known


class Method(BaseModel):
    """A training method. A new one is a file in this folder, or a class in your own package (docs/add-a-method.md).

    It has a literal `kind`, a docstring and a `run`; its fields are the parameters that a study may set and search. It
    must be pure: it depends only on its fields, the bench and the rows, so that stages can be reused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str

    source: ClassVar[str] = ""  # where it was published
    stages: ClassVar[tuple[str, ...]] = ()  # its steps, a few words each
    texts: ClassVar[tuple[str, ...]] = ()  # its additions to prompts and targets, for from-scratch tokenizers

    @property
    def is_control(self) -> bool:
        """True for a control, which is compared but never recommended."""
        return False

    def unfit(self, setup: Setup) -> Iterator[str]:  # noqa: ARG002 - others use it
        """Yield the reasons why this method cannot be used so, a sentence each."""
        yield from ()

    def asked(self, row: Row) -> Row:
        """Return a problem as the trained model gets it, in every evaluation split and when exported: `prompt` is what
        it reads, and `target` the right reply. The question must not change."""
        return row

    def reads_as(self, level: Level) -> Level:
        """Return the level that describes the targets of `asked`, for grading: `none` for a bare answer."""
        return level

    def prepare(self, bench: Bench) -> Data | None:
        """Make the data that all runs of an arm share, once, before they start, on the cluster. The bench refuses
        models here, since there is no seed yet. None means the task's problems."""
        return bench.problems()

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        """Carry out one run on its devices, and return a model of the bench, which is then graded on the test
        questions. prepared: the data from `prepare`, or the task's problems where it returned None."""
        raise NotImplementedError
