"""Sections of a study file that say what a run holds while it runs, and what it leaves. They change no result. Pure."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from showhow.sections.faults import Fault, refuse, shown
from showhow.sections.scalars import STRICT, Positive


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
