"""Sections of a study file that say what is read, how often a model is tried, and what a run holds. Pure."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from showhow.metrics import TEST, VALIDATION
from showhow.study.dataset_spec import TRAIN
from showhow.study.faults import Fault, refuse, shown
from showhow.study.recipe import STRICT, Positive, Share
from showhow.study.search_space import Scalar
from showhow.tasks.explain import Level


class Data(BaseModel):
    """The `[data]` section. eval_examples: questions in validation, in test and in each of eval_splits, which are
    variants of the task (`eval_splits.longer = { terms = 10 }`). max_tokens: longest prompt with target that a model is
    shown; longer rows are dropped and counted, and more than max_dropped_share of them is an error. control_length: the
    level whose length the controls `shuffled` and `filler` have."""

    model_config = STRICT

    train_examples: Positive
    eval_examples: Positive
    seed: Annotated[int, Field(ge=0)] = 0
    eval_splits: dict[str, dict[str, Scalar]] = {}
    max_tokens: Positive = 1024
    max_dropped_share: Share = 0.01
    control_length: Level = Level.LONG

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
    """The `[evaluation]` section, which bounds what evaluation costs. every_examples: training examples between
    evaluations (default: a twentieth of max_examples); validation_examples: questions asked each time (default: at most
    200 of eval_examples); all of test and of the further splits are asked once, at the end. solved_accuracy: a run at
    or above it has solved the task. written_by: what writes the replies (`vllm`: for large causal models on GPUs, see
    study/vllm.py)."""

    model_config = STRICT

    every_examples: Positive | None = None
    validation_examples: Positive | None = None
    batch_size: Positive = 256
    solved_accuracy: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    written_by: Literal["showhow", "vllm"] = "showhow"


def _count_or_auto(value: Any) -> Any:
    if value != "auto" and (type(value) is not int or value < 1):
        raise ValueError(f'got {shown(value)}, must be a whole number of at least 1, or "auto"')
    return value


Offload = Literal["none", "cpu", "nvme"]
ZeroStage = Literal[0, 1, 2, 3]


class Resources(BaseModel):
    """The `[resources]` section: what one trial holds while it runs. It does not change results, so it may be changed
    when a study is continued.

    devices_per_trial: processes that train it together (`auto`: the fewest that hold it, by the estimate of `showhow
    plan`); each has cpus_per_device CPUs and gpus_per_device GPUs. A trial of one device may have a share of a GPU.
    device_gb: memory of a GPU, or of a device's CPUs (default for CPUs: this machine's, divided among them; for GPUs it
    must be said where it shall count). device_tflops: 10^12 operations that a device computes in a second at its best,
    in the type of the recipe, as its maker says; for the hours in `showhow plan` alone."""

    model_config = STRICT

    devices_per_trial: Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)] = 1
    cpus_per_device: Positive = 1
    gpus_per_device: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    max_concurrent: Positive | None = None
    device_gb: Annotated[float, Field(gt=0.0)] | None = None
    device_tflops: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.devices_per_trial != 1 and self.gpus_per_device not in (0.0, 1.0):
            message = (
                f"got {self.gpus_per_device:g}, but trials of several devices need whole GPUs; write 1, or 0 for CPUs"
            )
            refuse([Fault("gpus_per_device", message)])
        return self


class Sharding(BaseModel):
    """The `[sharding]` section: how a trial is laid over its devices by DeepSpeed. Like `[resources]` it changes no
    result beyond rounding.

    zero_stage: see Layout (`auto`: the lowest at which a device holds its part). offload_optimizer, offload_parameters:
    where they wait while not in use; nvme_path: the folder for `nvme`. recompute_activations: keep few activations and
    compute the rest again in the backward pass. deepspeed: further settings by DeepSpeed's own names, or the path of a
    JSON file of them beside the study file."""

    model_config = STRICT

    zero_stage: Literal[0, 1, 2, 3, "auto"] = "auto"
    offload_optimizer: Offload = "none"
    offload_parameters: Offload = "none"
    nvme_path: str | None = None
    recompute_activations: bool = False
    deepspeed: dict[str, Any] | None = None


class Checkpoints(BaseModel):
    """The `[checkpoints]` section: what runs leave on the disk. It may be changed when a study is continued.

    every_minutes: a run saves its state at the first report so long after the last time, to go on from there when it is
    interrupted. keep_best: so many finished runs of the study keep their weights, and the best run of each level's
    leading trial in any case (0: none does); budget_gb: all that the study keeps, of which the best runs' weights go
    last."""

    model_config = STRICT

    every_minutes: Annotated[float, Field(ge=0.0)] = 5.0
    keep_best: Annotated[int, Field(ge=0)] = 3
    budget_gb: Annotated[float, Field(gt=0.0)] = 20.0
