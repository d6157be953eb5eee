"""The sections `[data]` and `[evaluation]` of a study file. Pure."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from showhow.errors import UserError
from showhow.metrics import METRICS, TEST, VALIDATION
from showhow.sections.dataset_spec import TRAIN
from showhow.sections.faults import Fault, refuse
from showhow.sections.scalars import FROM_LIST, STRICT, Positive, Scalar, Share
from showhow.tasks.explain import Level


class Data(BaseModel):
    """The `[data]` section. eval_examples: questions in validation, in test and in each of eval_splits, which are
    variants of the task (`eval_splits.longer = { terms = 10 }`). max_tokens: the most tokens of prompt and target;
    longer rows are dropped and counted, and more than max_dropped_share of them is an error. control_length: the level
    whose length the controls `shuffled` and `filler` have. explanation: the level of every trial, in a study
    that does not search it."""

    model_config = STRICT

    train_examples: Positive
    eval_examples: Positive
    seed: Annotated[int, Field(ge=0)] = 0
    eval_splits: dict[str, dict[str, Scalar]] = {}
    max_tokens: Positive = 1024
    max_dropped_share: Share = 0.01
    control_length: Level = Level.LONG
    explanation: Level | None = None

    @field_validator("eval_splits")
    @classmethod
    def _split_names(cls, splits: dict[str, dict[str, Scalar]]) -> dict[str, dict[str, Scalar]]:
        taken = (TRAIN, VALIDATION, TEST)
        refuse(
            Fault(name, "a split is named with small letters, digits and _, and not train, validation or test")
            for name in splits
            if name in taken or not re.fullmatch(r"[a-z][a-z0-9_]*", name)
        )
        return splits

    @field_validator("control_length")
    @classmethod
    def _explains(cls, level: Level) -> Level:
        if not level.has_steps:
            raise ValueError(f'"{level}" has no length to copy; allowed are short, medium and long')
        return level


class Evaluation(BaseModel):
    """The `[evaluation]` section, which limits the cost of evaluation. every_examples: training examples between
    evaluations (default: a twentieth of the budget); validation_examples: questions per evaluation (default: at most
    200 of eval_examples); test and the other splits are evaluated in full, once, at the end. solved_accuracy: a run at
    or above it has solved the task. written_by: what generates the replies (`vllm`: for large causal models on GPUs,
    see machines/vllm.py). metrics: names of registered metrics (showhow.Metric) to measure on every split too."""

    model_config = STRICT

    every_examples: Positive | None = None
    validation_examples: Positive | None = None
    batch_size: Positive = 256
    solved_accuracy: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    written_by: Literal["showhow", "vllm"] = "showhow"
    metrics: Annotated[tuple[str, ...], FROM_LIST] = ()

    @field_validator("metrics")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a metric is named twice")
        for name in names:
            _find_metric(name)
        return names


def _find_metric(name: str) -> None:
    try:
        METRICS.find(name)
    except UserError as error:
        hint = (
            ""
            if METRICS.kinds
            else "; metrics of your own are classes of showhow.Metric, registered with showhow.register"
        )
        raise ValueError(f"{error}{hint}") from None
