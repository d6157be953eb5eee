"""The interface of the bench, and the types of its calls. Loads neither torch nor ray."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from showhow.methods.losses import CrossEntropy, Loss
from showhow.methods.row import Row
from showhow.tasks.explain import Level

Unit = Literal["examples", "tokens", "flops"]


class Data(Protocol):
    """Rows that a stage made or will make. Data with equal addresses have equal rows."""

    @property
    def address(self) -> str:
        """A fingerprint of all that made them."""

    def __len__(self) -> int: ...


class Model(Protocol):
    """A model that stages have made."""

    @property
    def address(self) -> str:
        """A fingerprint of all that made it."""


@dataclass(frozen=True)
class Spent:
    """The cost of stages: training examples, tokens that a model read or wrote, and its operations."""

    examples: int = 0
    tokens: int = 0
    flops: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.examples + other.examples, self.tokens + other.tokens, self.flops + other.flops)

    def of(self, unit: Unit) -> float:
        """Return the cost in a unit."""
        return float(getattr(self, unit))


@dataclass(frozen=True)
class Sampling:
    """How replies are generated. replies: number per question; temperature: 0 is greedy decoding."""

    temperature: float = 0.0
    replies: int = 1
    max_tokens: int | None = None


GREEDY = Sampling()


class Budgeted(Protocol):
    """The budget of a run."""

    @property
    def unit(self) -> Unit:
        """The unit of the budget."""

    @property
    def amount(self) -> float:
        """The total budget."""

    @property
    def spent(self) -> Spent:
        """The cost of all stages that the run has used so far."""

    @property
    def left(self) -> float:
        """The remaining budget, in its unit."""


class Bench(Protocol):
    """What a method may call. Stages that depend on the seed have it in their address."""

    @property
    def seed(self) -> int:
        """The seed of the run."""

    @property
    def budget(self) -> Budgeted:
        """The run's budget, and the part that is spent."""

    def problems(self, split: str = "train", *, level: Level | None = None, examples: int | None = None) -> Data:
        """Return the task's problems in a split, explained at a level (None: the run's)."""

    def map(self, data: Data, rows: Callable[[Row], Iterable[Row]], *, version: int) -> Data:
        """Return what a function makes of each row: none, one or several. Increase `version` when it changes.

        The function is addressed by its name and bound arguments: one at the top level of a module, a method of the
        class, or a functools.partial of these with numbers, texts or methods. Raises TrialError for one that uses
        variables of an enclosing function, that fails, or that makes no rows."""

    def select(self, data: Data, keep: Callable[[Row], bool], *, version: int, balance: str | None = None) -> Data:
        """Return the rows for which a function is true (see `map`); balance: take the same number for each value of a
        column (or field), the first ones. Raises TrialError where there are none."""

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
        """Train a model on rows, for as many full batches as the budget allows, and return it at `keep` evenly spaced
        points, the last at the end. The given model does not change.

        examples: how many to see, below 1 a share of the total budget (None: until it is spent). watched: training is
        validated regularly, may be stopped early, ends at the study's goal, saves its state as the run's, and returns
        one model; unwatched training is a stage that several runs may share. A run should have one watched training,
        its last. Raises TrialError where the budget leaves less than one batch."""

    def reply(self, model: Model, data: Data, sampling: Sampling = GREEDY) -> Data:
        """Return a row for each reply of the model to each prompt, with the columns `reply` and `reply_number` (from 0
        for each prompt)."""

    def score(self, model: Model, data: Data, *, column: str = "nll") -> Data:
        """Return the rows with a column: the mean nats of a target token under the model."""

    def grade(self, replies: Data) -> Data:
        """Return replies with the columns `right` and, where the target has steps, `steps_right`. A target without the
        task's answer prefix is a bare answer. Raises TrialError for rows without a reply."""

    def average(self, models: Sequence[Model], weights: Sequence[float] | None = None) -> Model:
        """Return the model whose weights are the mean of several of the same shape."""

    def report(self, model: Model) -> None:
        """Validate a model and report its metrics, for methods that train in rounds."""
