"""The part of a bench that makes data: the calls for a method's `prepare`, before there is any model.

In a trial's process the complete bench (bench/bench.py) makes its data by it too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from showhow.datasets import derived
from showhow.datasets.dataset import Dataset
from showhow.datasets.generate import generate, is_large
from showhow.errors import TrialError
from showhow.methods.base import Method
from showhow.methods.bench import Data
from showhow.methods.row import Row
from showhow.sections.budget import Allowance
from showhow.sections.dataset_spec import TRAIN
from showhow.sections.trial import Trial
from showhow.tasks.explain import Level


class DataBench:
    """Makes the data of a trial in a folder of datasets. on_cluster: large ones may be spread over a cluster."""

    def __init__(self, trial: Trial, folder: Path, on_cluster: bool = False, seed: int | None = None) -> None:
        self.seed = trial.data.seed if seed is None else seed
        self.budget = Allowance(trial.budget)
        self.folder = folder
        self._trial, self._on_cluster = trial, on_cluster

    def problems(self, split: str = TRAIN, *, level: Level | None = None, examples: int | None = None) -> Dataset:
        """See Bench. Raises UserError when the task has too few different questions."""
        spec = self._trial.dataset(split)
        changes: dict[str, Any] = {} if level is None else {"level": level}
        changes |= {} if examples is None else {"examples": examples}
        spec = spec.model_copy(update=changes)
        return Dataset.open(generate(spec, self.folder, on_cluster=self._on_cluster and is_large(spec)))

    def questions(self, split: str) -> Dataset:
        """Return the questions of an evaluation split, in the form of the trial's method."""
        data, method = self.problems(split), self._trial.method
        if type(method).asked is Method.asked:
            return data
        return self.map(data, partial(_asked, method=method), version=1)

    def map(self, data: Data, rows: Callable[[Row], Iterable[Row]], *, version: int) -> Dataset:
        """See Bench. Raises TrialError where the function fails, or makes no rows."""
        found = cast(Dataset, data)
        return derived.mapped(found, self.folder, rows, version, self._on_cluster and is_large(found.manifest.spec))

    def select(self, data: Data, keep: Callable[[Row], bool], *, version: int, balance: str | None = None) -> Dataset:
        """See Bench. Raises TrialError where no row is selected."""
        return derived.selected(cast(Dataset, data), self.folder, keep, version, balance)

    def split(self, data: Data, parts: int, *, by: str | None = None) -> tuple[Dataset, ...]:
        """See Bench. Raises TrialError for a column that some rows do not have."""
        return derived.split(cast(Dataset, data), self.folder, parts, by, self.seed)

    def mix(self, parts: Mapping[str, Data]) -> Dataset:
        """See Bench."""
        return derived.mixed({name: cast(Dataset, part) for name, part in parts.items()}, self.folder)

    def start(self) -> NoReturn:
        """Refuse: there is no model yet."""
        raise TrialError("prepare makes data only, since it is shared by runs of other seeds; use models in run")

    def train(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse, as `start` does."""
        self.start()

    def reply(self, *_: Any) -> NoReturn:
        """Refuse, as `start` does."""
        self.start()

    def score(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse, as `start` does."""
        self.start()

    def grade(self, replies: Data) -> NoReturn:  # noqa: ARG002 - the bench's signature
        """Refuse, as `start` does."""
        self.start()

    def average(self, models: Sequence[Any], weights: Sequence[float] | None = None) -> NoReturn:  # noqa: ARG002
        """Refuse, as `start` does."""
        self.start()

    def report(self, model: Any) -> NoReturn:  # noqa: ARG002
        """Refuse, as `start` does."""
        self.start()


def _asked(row: Row, method: Method) -> list[Row]:
    return [method.asked(row)]
