"""The bench in a trial's process: the calls of a method (methods/bench.py), with real models on the run's devices.

The processes that train together run the same method in parallel and make every call together."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import cast

from showhow.bench import asking
from showhow.bench.job import Job
from showhow.bench.models import StagedModel
from showhow.bench.training import Ending, Lesson, reported, train_stage, train_watched
from showhow.datasets.dataset import Dataset
from showhow.errors import TrialError
from showhow.methods.bench import GREEDY, Budgeted, Data, Model, Sampling, Spent
from showhow.methods.losses import CrossEntropy, Loss
from showhow.methods.row import Row
from showhow.sections.dataset_spec import TRAIN
from showhow.tasks.explain import Level
from showhow.training.checkpoints.files import read_weights, write_weights
from showhow.training.loop import Progress
from showhow.training.ranks import agreed, rank

_AVERAGE = 1  # the version of averaging


class RunBench:
    """See methods.bench.Bench."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        """`stack`: closes resources at the end of the run."""
        self._job, self._stack = job, stack
        self.ending: Ending | None = None

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self._job.run.seed

    @property
    def budget(self) -> Budgeted:
        """The run's budget, and the part that is spent."""
        return self._job.data.budget

    @property
    def prepared(self) -> Dataset | None:
        """The data that the method's `prepare` made for all runs of the arm."""
        tokens = self._job.run.shards.get(TRAIN)
        return None if tokens is None else Dataset.open(tokens.parent)

    def problems(self, split: str = TRAIN, *, level: Level | None = None, examples: int | None = None) -> Data:
        """See Bench."""
        return self._made("problems", lambda: self._job.data.problems(split, level=level, examples=examples))

    def map(self, data: Data, rows: Callable[[Row], Iterable[Row]], *, version: int) -> Data:
        """See Bench."""
        return self._made("map", lambda: self._job.data.map(data, rows, version=version))

    def select(self, data: Data, keep: Callable[[Row], bool], *, version: int, balance: str | None = None) -> Data:
        """See Bench."""
        return self._made("select", lambda: self._job.data.select(data, keep, version=version, balance=balance))

    def split(self, data: Data, parts: int, *, by: str | None = None) -> tuple[Data, ...]:
        """See Bench."""
        return self._job.made("split", lambda: self._job.data.split(data, parts, by=by))

    def mix(self, parts: Mapping[str, Data]) -> Data:
        """See Bench."""
        return self._made("mix", lambda: self._job.data.mix(parts))

    def start(self) -> Model:
        """See Bench."""
        return self._job.models.start

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
        """See Bench. Raises TrialError when training cannot continue, and OutOfMemoryError."""
        lesson = Lesson(cast(Dataset, data), loss, examples)
        if not watched:
            return train_stage(self._job, cast(StagedModel, model), lesson, keep)
        if keep != 1:
            raise TrialError(f"keep = {keep}: watched training leaves one model; for several use watched=False")
        if self.ending is not None:  # of an earlier training, whose last report is still to be made
            self._job.listeners.report(self.ending.metrics)
        trained, self.ending = train_watched(self._job, cast(StagedModel, model), lesson, self._stack)
        return (trained,)

    def reply(self, model: Model, data: Data, sampling: Sampling = GREEDY) -> Data:
        """See Bench."""
        return asking.reply(self._job, cast(StagedModel, model), cast(Dataset, data), sampling)

    def score(self, model: Model, data: Data, *, column: str = "nll") -> Data:
        """See Bench."""
        return asking.score(self._job, cast(StagedModel, model), cast(Dataset, data), column)

    def grade(self, replies: Data) -> Data:
        """See Bench."""
        return self._made("grade", lambda: asking.graded(self._job, cast(Dataset, replies)))

    def average(self, models: Sequence[Model], weights: Sequence[float] | None = None) -> Model:
        """See Bench. Raises TrialError where a model was not trained, or shapes differ."""
        shares = [1 / len(models)] * len(models) if weights is None else [one / sum(weights) for one in weights]
        inputs = tuple(model.address for model in models)
        address = self._job.stages.address("average", _AVERAGE, {"shares": shares}, inputs)
        folder, started = self._job.stages.model(address, 0), time.perf_counter()
        is_reused = bool(agreed(read_weights(folder) is not None))
        if not is_reused:
            self._job.models.release()  # in all processes
        if not is_reused and rank() == 0:
            found = [read_weights(one.weights) if one.weights else None for one in cast(Sequence[StagedModel], models)]
            complete = [one for one in found if one is not None]
            if len(complete) < len(found) or len({frozenset(one) for one in complete}) != 1:
                raise TrialError("average: the models must have been trained, and have the same parameters")
            pairs = [*zip(shares, complete, strict=True)]
            mean = {name: sum(share * one[name] for share, one in pairs) for name in complete[0]}
            write_weights(folder, mean, address)  # type: ignore[arg-type]
        agreed(0.0)
        self._job.listeners.stage("average", address, is_reused, Spent(), time.perf_counter() - started)
        return StagedModel(address, folder)

    def report(self, model: Model) -> None:
        """See Bench."""
        engine, spent = self._job.models.engine(cast(StagedModel, model)), self.budget.spent
        validated = self._job.evaluations.validate(engine, spent.examples)
        nothing = Progress(0, 0, 0.0, float("nan"), 0.0, 0.0, 0.0, 0.0)
        self._job.listeners.report(reported(nothing, spent) | self._job.evaluations.metrics(validated))

    def _made(self, operation: str, make: Callable[[], Dataset]) -> Dataset:
        (data,) = self._job.made(operation, lambda: (make(),))
        return data
