"""The sections for what a run occupies while it runs, and what it leaves on disk. They change no result. Pure."""

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
    """The `[resources]` section: what one trial occupies while it runs. It does not change results, so it may be
    changed when a study is resumed.

    devices_per_trial: processes that train it together (`auto`: the fewest that it fits on, by the estimate of `showhow
    plan`); each has cpus_per_device CPUs and gpus_per_device GPUs. A trial of one device may have a share of a GPU.
    device_gb: memory of a GPU, or of a device's CPUs (default for CPUs: this machine's, divided among them; for GPUs:
    unknown). device_tflops: a device's peak speed in 10^12 operations per second, in the type of the recipe, as
    its maker states it; only for the hours in `showhow plan`."""

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
    """The `[sharding]` section: how DeepSpeed distributes a trial over its devices. Like `[resources]` it changes no
    result beyond rounding.

    zero_stage: see Layout (`auto`: the lowest at which a trial fits). offload_optimizer, offload_parameters: where they
    are stored while not in use; nvme_path: the folder for `nvme`. recompute_activations: store few activations and
    recompute the rest in the backward pass. deepspeed: further settings by DeepSpeed's own names, or the path of a JSON
    file of them, relative to the study file."""

    model_config = STRICT

    zero_stage: Literal[0, 1, 2, 3, "auto"] = "auto"
    offload_optimizer: Offload = "none"
    offload_parameters: Offload = "none"
    nvme_path: str | None = None
    recompute_activations: bool = False
    deepspeed: dict[str, Any] | None = None


class Checkpoints(BaseModel):
    """The `[checkpoints]` section: what runs leave on the disk. It may be changed when a study is resumed.

    every_minutes: a run saves its state at the first report this long after its last save, and resumes from it after
    an interruption. keep_best: the number of finished runs that keep their weights; the best run of each arm's leading
    trial also does (0: none does). budget_gb: the most that the study keeps on disk (see home/retention.py)."""

    model_config = STRICT

    every_minutes: Annotated[float, Field(ge=0.0)] = 5.0
    keep_best: Annotated[int, Field(ge=0)] = 3
    budget_gb: Annotated[float, Field(gt=0.0)] = 20.0
