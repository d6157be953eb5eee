"""One point of a study's search space with everything filled in: the settings of a run. Pure."""

from collections.abc import Iterator
from typing import Self

from pydantic import BaseModel, ValidationError, model_validator

from showhow.methods import AnyMethod
from showhow.metrics import TEST, VALIDATION
from showhow.sections.adapter import Adapter
from showhow.sections.budget import Budget
from showhow.sections.data import Data, Evaluation
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.sections.faults import Fault, faults_of, refuse
from showhow.sections.recipe import ModelSpec, Recipe, ScratchModel
from showhow.sections.scalars import STRICT, Scalar
from showhow.tasks import AnyTask
from showhow.tasks.base import Task
from showhow.tasks.explain import Level

_VALIDATION_EXAMPLES = 200  # per evaluation, where the study does not set it


class Trial(BaseModel):
    """One point of the search space. arm: the name of its arm; setting: its values on the axes within which arms are
    compared (see study/arms.py)."""

    model_config = STRICT

    name: str
    arm: str
    setting: dict[str, Scalar]
    level: Level
    point: dict[str, Scalar]
    task: AnyTask
    data: Data
    model: ModelSpec
    adapter: Adapter | None = None
    method: AnyMethod
    recipe: Recipe
    evaluation: Evaluation
    budget: Budget

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        refuse(self._misfits())
        return self

    def _misfits(self) -> Iterator[Fault]:
        batch, examples, every = self.recipe.batch_size, self.recipe.max_examples, self.evaluation.every_examples
        if self.data.train_examples < batch:
            yield Fault("data.train_examples", f"{self.data.train_examples:,} do not fill one batch of {batch:,}")
        if every is not None and not batch <= every <= (examples or every):
            most = f" and at most max_examples ({examples:,})" if examples else ""
            yield Fault("evaluation.every_examples", f"got {every:,}, must be at least one batch ({batch:,}){most}")
        questions = self.evaluation.validation_examples
        if questions is not None and questions > self.data.eval_examples:
            yield Fault(
                "evaluation.validation_examples", f"got {questions:,}, but eval_examples = {self.data.eval_examples:,}"
            )
        if (
            self.recipe.batching == "packed"
            and isinstance(self.model, ScratchModel)
            and self.model.architecture == "t5"
        ):
            yield Fault("recipe.batching", '"packed" is for causal models, and t5 is none; write "grouped"')

    def dataset(self, split: str) -> DatasetSpec:
        """Return the dataset of a split: `train`, `validation`, `test` or one of eval_splits."""
        changes = self.data.eval_splits.get(split)
        return DatasetSpec(
            task=self.task if changes is None else _variant(self.task, changes),
            level=self.level,
            split=split,
            examples=self.data.train_examples if split == TRAIN else self.data.eval_examples,
            seed=self.data.seed,
            control_length=self.data.control_length,
        )

    def dataset_faults(self) -> list[Fault]:
        """Find impossible splits: variants with impossible parameters, more questions than there are."""
        return [fault for split in self.splits for fault in self._split_faults(split)]

    def _split_faults(self, split: str) -> list[Fault]:
        try:
            spec = self.dataset(split)
        except ValidationError as error:
            faults = faults_of(error, type(self.task))
            return [Fault(f"data.eval_splits.{split}.{key}".rstrip("."), message) for key, message in faults]
        available = spec.available
        if available is None or spec.examples <= available:
            return []
        return [
            Fault(
                "data.train_examples" if split == TRAIN else "data.eval_examples",
                f"{spec.examples:,} different questions wanted in the {split} split, but this task has {available:,} "
                f"there ({len(spec.buckets)}% of all); set fewer or make the task larger",
            )
        ]

    @property
    def is_control(self) -> bool:
        """True if the arm serves only for comparison, and is not recommended."""
        return self.level.is_control or self.method.is_control

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits, train first."""
        return (TRAIN, VALIDATION, TEST, *self.data.eval_splits)

    @property
    def validation_examples(self) -> int:
        """Questions per evaluation during training."""
        return min(self.evaluation.validation_examples or _VALIDATION_EXAMPLES, self.data.eval_examples)


def _variant(task: Task, changes: dict[str, Scalar]) -> Task:
    """Return the task with some parameters changed, strictly typed; a preset among them sets its parameters."""
    preset = task.presets.get(str(changes.get("preset")), {})
    return type(task).model_validate({**task.model_dump(), **preset, **changes}, strict=True)
