"""What a method may call: the bench, and what its calls take and give. Loads neither torch nor ray."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from showhow.methods.losses import CrossEntropy, Loss
from showhow.methods.row import Row
from showhow.tasks.explain import Level

Unit = Literal["examples", "tokens", "flops"]


class Data(Protocol):
    """Rows that a stage made or will make. Two of the same address hold the same rows."""

    @property
    def address(self) -> str:
        """What names them: a fingerprint of all that made them."""

    def __len__(self) -> int: ...


class Model(Protocol):
    """A model as some stages left it."""

    @property
    def address(self) -> str:
        """What names it: a fingerprint of all that made it."""


@dataclass(frozen=True)
class Spent:
    """What stages cost: training examples, tokens that went through a model, and its operations."""

    examples: int = 0
    tokens: int = 0
    flops: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.examples + other.examples, self.tokens + other.tokens, self.flops + other.flops)

    def of(self, unit: Unit) -> float:
        """Return how much in a unit."""
        return float(getattr(self, unit))


@dataclass(frozen=True)
class Sampling:
    """How replies are written. replies: to each question; temperature: 0 takes the likeliest token each time."""

    temperature: float = 0.0
    replies: int = 1
    max_tokens: int | None = None


GREEDY = Sampling()


class Budgeted(Protocol):
    """What a run may spend."""

    @property
    def unit(self) -> Unit:
        """What is counted."""

    @property
    def amount(self) -> float:
        """How much in all."""

    @property
    def spent(self) -> Spent:
        """By all the stages that the run has used so far."""

    @property
    def left(self) -> float:
        """In the budget's unit."""


class Bench(Protocol):
    """What a method may call. Stages that the seed matters to are addressed by it too."""

    @property
    def seed(self) -> int:
        """The run's."""

    @property
    def budget(self) -> Budgeted:
        """What the run may spend, and has spent."""

    def problems(self, split: str = "train", *, level: Level | None = None, examples: int | None = None) -> Data:
        """Return the task's problems in a split, explained at a level (None: the run's)."""

    def map(self, data: Data, rows: Callable[[Row], Iterable[Row]], *, version: int) -> Data:
        """Return what a function makes of each row: none, one or several. Raise `version` when it would make others.

        The function is addressed by its name and what is bound to it: one at the top level of a module, a method of
        the class, or a functools.partial of such with numbers, texts or methods. Raises TrialError for one that uses
        variables of a function around it, that fails, or that makes no row at all."""

    def select(self, data: Data, keep: Callable[[Row], bool], *, version: int, balance: str | None = None) -> Data:
        """Return the rows that a function keeps (see `map`); balance: as many of each value of a column (or field), the
        first ones. Raises TrialError where none is kept."""

    def split(self, data: Data, parts: int, *, by: str | None = None) -> tuple[Data, ...]:
        """Return parts of sizes that differ by at most one: by a column, the lowest first, or at random."""

    def mix(self, parts: Mapping[str, Data]) -> Data:
        """Return the rows of all parts, each with the name of its part."""

    def start(self) -> Model:
        """Return the run's model as it is before any training."""

    def train(
        self,
        model: Model,
        data: Data,
        *,
        loss: Loss = CrossEntropy(),  # noqa: B008 - frozen
        examples: float | None = None,
        keep: int = 1,
        watched: bool = True,
    ) -> tuple[Model, ...]:
        """Train a model on rows, as many whole batches as do not exceed the budget, and return it as it was at `keep`
        points, evenly apart, the last at the end. The model that is given stays as it is.

        examples: how many to see, below 1 a share of the whole budget (None: until it is spent); watched: it is
        validated as it goes, may be stopped early, ends at the study's goal and saves its state as the run's, and it
        leaves one model; what is not watched is a stage that several runs may share. A run should have one watched
        training, its last. Raises TrialError where the budget leaves less than one batch."""

    def reply(self, model: Model, data: Data, sampling: Sampling = GREEDY) -> Data:
        """Return a row for each reply that the model writes to each prompt: with the columns `reply` and
        `reply_number` (from 0, of those to one prompt)."""

    def score(self, model: Model, data: Data, *, column: str = "nll") -> Data:
        """Return the rows with a column: nats a target token, by the model, mean over the row's target."""

    def grade(self, replies: Data) -> Data:
        """Return replies with the columns `right` and, where the target has steps, `steps_right`. A target without the
        task's answer prefix is read as a bare answer. Raises TrialError for rows without a reply."""

    def average(self, models: Sequence[Model], weights: Sequence[float] | None = None) -> Model:
        """Return the model whose weights are the mean of several of the same shape."""

    def report(self, model: Model) -> None:
        """Validate a model and report it, for methods that train in rounds."""
