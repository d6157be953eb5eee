"""A bench in memory, on which any method runs in milliseconds: rows are real, models are addresses.

It follows the rules of the real one (bench/bench.py): data and models are addressed by operation, version, settings and
inputs, made once, and charged to each run that uses them; training takes full batches until the budget is spent.
What a model would compute is drawn by hashing instead: the same model and row give the same reply and the same score.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from showhow.datasets.addresses import address_of, name_of, settings_of
from showhow.datasets.manifest import Derivation
from showhow.datasets.rows import balanced, mixture, ordered, part_of
from showhow.errors import TrialError
from showhow.fingerprint import fingerprint
from showhow.methods.bench import GREEDY, Data, Model, Sampling, Spent, Unit
from showhow.methods.losses import CrossEntropy, Loss
from showhow.methods.row import Row
from showhow.sections.budget import Allowance, Budget
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks.base import Task
from showhow.tasks.explain import Level
from showhow.testing.fakes import FakeData, FakeModel, drawn, tokens_of
from showhow.testing.lessons import batches, cost
from showhow.testing.replies import graded, share, wrong

T = TypeVar("T")
_MOST_NATS = 4.0  # a score lies between 0 and this
Store = dict[str, tuple[Any, Spent]]  # the content and the cost of each address


@dataclass(frozen=True)
class Stage:
    """One call of the bench that made something. is_reused: it existed already; spent: what the run was charged."""

    operation: str
    address: str
    is_reused: bool
    spent: Spent = Spent()  # noqa: RUF009 - frozen


@dataclass
class FakeBench:
    """See methods.bench.Bench.

    task, level, train_examples, eval_examples, data_seed: of the problems; seed: the run's; amount, unit: the budget;
    batch_size: training examples per step; share_right: the share of right replies (which ones is a function of model
    and row); parameters: of the model, for FLOPs; has_models: False while a method prepares; store: everything made so
    far, which benches may share as the runs of a study do. After a run `stages` has its calls in order, `reports` the
    addresses of the models that it reported, and `budget.spent` what it was charged."""

    task: Task
    level: Level = Level.LONG
    seed: int = 0
    amount: float = 640
    unit: Unit = "examples"
    batch_size: int = 16
    train_examples: int = 150
    eval_examples: int = 50
    data_seed: int = 0
    share_right: float = 0.5
    parameters: int = 1000
    has_models: bool = True
    store: Store = field(default_factory=dict)
    budget: Allowance = field(init=False)
    stages: list[Stage] = field(init=False, default_factory=list)
    reports: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.budget = Allowance(Budget(unit=self.unit, amount=self.amount))

    def preparing(self) -> "FakeBench":
        """Return the bench on which a method prepares the data of this run: it has the same store, and no models."""
        return dataclasses.replace(self, seed=self.data_seed, has_models=False)

    def problems(self, split: str = TRAIN, *, level: Level | None = None, examples: int | None = None) -> FakeData:
        """See Bench. Raises UserError when the task has too few different questions."""
        spec = DatasetSpec(
            task=self.task,
            level=self.level if level is None else level,
            split=split,
            examples=examples or (self.train_examples if split == TRAIN else self.eval_examples),
            seed=self.data_seed,
            control_length=Level.LONG,
        )
        return self._made("problems", spec.fingerprint, lambda: (drawn(spec), Spent()))

    def map(self, data: Data, rows: Callable[[Row], Iterable[Row]], *, version: int) -> FakeData:
        """See Bench. Raises TrialError where the function fails, or returns no row."""
        return self._derived("map", version, settings_of(rows), data, lambda: _mapped(_own(data), rows))

    def select(self, data: Data, keep: Callable[[Row], bool], *, version: int, balance: str | None = None) -> FakeData:
        """See Bench. Raises TrialError where no row is selected."""

        def selected() -> list[Row]:
            found = [row for row in _own(data).rows() if keep(row)]
            return found if balance is None else balanced(found, balance)

        return self._derived("select", version, {**settings_of(keep), "balance": balance}, data, selected)

    def split(self, data: Data, parts: int, *, by: str | None = None) -> tuple[FakeData, ...]:
        """See Bench. Raises TrialError for a column that some rows do not have."""
        settings: dict[str, Any] = {"by": by} if by is not None else {"by": None, "seed": self.seed}
        rows = ordered(_own(data), by, self.seed)

        def part(number: int) -> FakeData:
            numbered = {"parts": parts, "part": number, **settings}
            return self._derived("split", 1, numbered, data, lambda: part_of(rows, number, parts))

        return tuple(part(number) for number in range(parts))

    def mix(self, parts: Mapping[str, Data]) -> FakeData:
        """See Bench."""
        own = {name: _own(part) for name, part in parts.items()}
        inputs = tuple(part.address for part in own.values())
        derivation = Derivation(operation="mix", version=1, settings={"parts": [*parts]}, inputs=inputs)
        level = next(iter(own.values())).level  # of the first part, as in the real one
        return self._data("mix", derivation, level, lambda: ([*mixture(own)], Spent()))

    def start(self) -> FakeModel:
        """See Bench. Raises TrialError while a method prepares."""
        self._need_models()
        return FakeModel(fingerprint({"operation": "start", "seed": self.seed}))

    def train(
        self,
        model: Model,
        data: Data,
        *,
        loss: Loss = CrossEntropy(),  # noqa: B008 - frozen
        examples: float | None = None,
        keep: int = 1,
        watched: bool = True,
    ) -> tuple[FakeModel, ...]:
        """See Bench. Raises TrialError where the budget leaves less than one batch."""
        before, rows = _own_model(model), _own(data)
        self._need_models()
        if watched and keep != 1:
            raise TrialError(f"keep = {keep}: watched training leaves one model; for several use watched=False")
        settings = {"loss": loss.model_dump(mode="json"), "batch_size": self.batch_size, "seed": self.seed}
        settings |= {"budget": self.budget.budget.model_dump(mode="json"), "watched": watched}
        settings |= {"keep": keep, "until": repr(self.budget.room(examples))}

        def trained(address: str) -> tuple[tuple[FakeModel, ...], Spent]:
            names = [address] if watched else [f"{address}/{number}" for number in range(keep)]
            seen = (*before.trained_on, rows.address)
            stream = batches(rows, loss, self.batch_size, self.seed)
            spent = cost(rows, stream, self.budget, examples, 6 * self.parameters)
            return tuple(FakeModel(name, seen) for name in names), spent

        return self._staged("train", settings, (before.address, rows.address), "training", trained)

    def reply(self, model: Model, data: Data, sampling: Sampling = GREEDY) -> FakeData:
        """See Bench. A share of the replies is the target, the others a wrong answer."""
        settings: dict[str, Any] = {**asdict(sampling), "share_right": self.share_right}
        settings |= {"seed": self.seed} if sampling.temperature else {}

        def reply_to(row: Row, number: int) -> Row:
            key = (number, self.seed) if sampling.temperature else ()
            is_right = share("reply", model.address, row.prompt, *key) < self.share_right
            return row.with_(reply=row.target if is_right else wrong(row, self.task.answers), reply_number=number)

        def written(rows: FakeData) -> tuple[list[Row], int]:
            made = [reply_to(row, number) for row in rows.rows() for number in range(sampling.replies)]
            return made, sum(tokens_of(row.prompt) + tokens_of(str(row.columns["reply"])) for row in made)

        return self._read("reply", settings, model, data, written)

    def score(self, model: Model, data: Data, *, column: str = "nll") -> FakeData:
        """See Bench: nats between 0 and 4, a function of model, prompt and target."""

        def scored(rows: FakeData) -> tuple[list[Row], int]:
            nats = [share("score", model.address, row.prompt, row.target) * _MOST_NATS for row in rows.rows()]
            return [row.with_(**{column: one}) for row, one in zip(rows.rows(), nats, strict=True)], sum(rows.tokens)

        return self._read("score", {"column": column}, model, data, scored)

    def grade(self, replies: Data) -> FakeData:
        """See Bench. Raises TrialError for rows without a reply."""
        self._need_models()
        own, layout = _own(replies), self.task.text_format
        settings = {"function": "grade", "level": own.level.value}
        return self._derived(
            "grade", 1, settings, replies, lambda: [graded(row, own.level, layout) for row in own.rows()]
        )

    def average(self, models: Sequence[Model], weights: Sequence[float] | None = None) -> FakeModel:
        """See Bench. Raises TrialError where a model was not trained."""
        self._need_models()
        own = [_own_model(model) for model in models]
        if not own or not all(model.trained_on for model in own):
            raise TrialError("average: the models must have been trained")
        shares = [1 / len(own)] * len(own) if weights is None else [one / sum(weights) for one in weights]
        seen = tuple(dict.fromkeys(address for model in own for address in model.trained_on))
        return self._staged(
            "average",
            {"shares": shares},
            tuple(model.address for model in own),
            "training",
            lambda address: (FakeModel(address, seen), Spent()),
        )

    def report(self, model: Model) -> None:
        """See Bench."""
        self._need_models()
        self.reports.append(_own_model(model).address)

    def _need_models(self) -> None:
        if not self.has_models:
            raise TrialError("prepare makes data only, since it is shared by runs of other seeds; use models in run")

    def _made(self, operation: str, address: str, make: Callable[[], tuple[T, Spent]], kind: str = "") -> T:
        """Return the content of an address, made if missing; record the stage and charge it."""
        is_reused = address in self.store
        if not is_reused:
            self.store[address] = make()
        found: T
        found, spent = self.store[address]
        if kind:
            self.budget.charge(kind, spent)
        self.stages.append(Stage(operation, address, is_reused, spent))
        return found

    def _data(
        self,
        operation: str,
        derivation: Derivation,
        level: Level,
        make: Callable[[], tuple[Sequence[Row], Spent]],
        kind: str = "",
    ) -> FakeData:
        address = address_of(derivation)

        def made() -> tuple[FakeData, Spent]:
            rows, spent = make()
            if not rows:
                raise TrialError(f"{operation} ({derivation.settings.get('function', '')}) leaves no row")
            return FakeData(address, tuple(rows), level), spent

        return self._made(operation, address, made, kind)

    def _derived(
        self, operation: str, version: int, settings: dict[str, Any], data: Data, make: Callable[[], Sequence[Row]]
    ) -> FakeData:
        own = _own(data)
        derivation = Derivation(operation=operation, version=version, settings=settings, inputs=(own.address,))
        return self._data(operation, derivation, own.level, lambda: (make(), Spent()))

    def _staged(
        self,
        operation: str,
        settings: dict[str, Any],
        inputs: tuple[str, ...],
        kind: str,
        make: Callable[[str], tuple[T, Spent]],
    ) -> T:
        address = fingerprint({"operation": operation, "version": 1, "settings": settings, "inputs": [*inputs]})
        return self._made(operation, address, lambda: make(address), kind)

    def _read(
        self,
        operation: str,
        settings: dict[str, Any],
        model: Model,
        data: Data,
        read: Callable[[FakeData], tuple[list[Row], int]],
    ) -> FakeData:
        """Return a model's output for rows; `read` returns it with the number of tokens it processes."""
        self._need_models()
        inputs = (_own_model(model).address, _own(data).address)
        derivation = Derivation(operation=operation, version=1, settings=settings, inputs=inputs)

        def made() -> tuple[list[Row], Spent]:
            rows, tokens = read(_own(data))
            return rows, Spent(0, tokens, 2.0 * self.parameters * tokens)

        kind = "replies" if operation == "reply" else "scores"
        return self._data(operation, derivation, _own(data).level, made, kind)


def _mapped(data: FakeData, rows: Callable[[Row], Iterable[Row]]) -> list[Row]:
    try:
        return [new for row in data.rows() for new in rows(row)]
    except Exception as error:
        raise TrialError(f"{name_of(rows)} failed: {type(error).__name__}: {error}") from error


def _own(data: Data) -> FakeData:
    if not isinstance(data, FakeData):
        raise TrialError(f"got {type(data).__name__} where data of this bench are needed")
    return data


def _own_model(model: Model) -> FakeModel:
    if not isinstance(model, FakeModel):
        raise TrialError(f"got {type(model).__name__} where a model of this bench is needed")
    return model
