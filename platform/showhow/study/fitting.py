"""Which layout a trial gets: as few devices as hold it, sharing as little as they must, by the estimate of memory.py;
and what of a layout cannot be. Pure, but for asking what this machine has.
"""

from collections.abc import Iterator
from itertools import takewhile
from typing import get_args

from showhow.errors import UserError
from showhow.study import machine
from showhow.study.deepspeed_config import deepspeed_faults, least_zero_stage
from showhow.study.faults import Fault
from showhow.study.layout import Layout, next_rung
from showhow.study.lengths import training_lengths
from showhow.study.memory import Memory, memory_of
from showhow.study.model_sizes import sizes_of
from showhow.study.sections import Resources, Sharding, ZeroStage
from showhow.study.trial import Trial

_STAGES: tuple[ZeroStage, ...] = get_args(ZeroStage)


def layout_of(trial: Trial, resources: Resources, sharding: Sharding) -> Layout:
    """Return the layout that a study asks for; where it leaves that open, the fewest devices (1, 2, 4, ... that divide
    the batch), and for them the lowest ZeRO stage, at which a device holds its part. What is not known (a model that is
    not on this disk, a GPU whose size nobody has told) is taken to fit. Where none fits it is the one that shares
    most."""
    possible = [*_layouts(trial, resources, sharding)]
    return next((layout for layout in possible if fits(trial, layout, resources)), possible[-1])


def fitting_layout_of(trial: Trial, resources: Resources, sharding: Sharding) -> Layout:
    """Return `layout_of`. Raises UserError when the study leaves the layout open and none fits."""
    layout = layout_of(trial, resources, sharding)
    if _is_open(resources, sharding) and not fits(trial, layout, resources):
        raise UserError(f"{trial.name}: {_refusal(trial, layout, resources)}")
    return layout


def memory_on_device(trial: Trial, layout: Layout, resources: Resources) -> Memory | None:
    """Estimate what one device of a run holds; None where the model is not on this disk."""
    sizes = sizes_of(trial)
    if sizes is None:
        return None
    return memory_of(trial, sizes, training_lengths(trial), layout, resources.gpus_per_device > 0)


def device_bytes(resources: Resources) -> int | None:
    """Return what one device of a trial may hold: as the study says, with a share of a GPU that share; else for CPUs
    this machine's memory, divided among all that can run at once; None for GPUs of unknown size."""
    if resources.device_gb is not None:
        return round(1e9 * resources.device_gb * (resources.gpus_per_device or 1))
    if resources.gpus_per_device:
        return None
    return machine.memory_bytes() // devices_at_once(resources, machine.cpu_count())


def devices_at_once(resources: Resources, cpus: int) -> int:
    """Return how many devices of CPUs are at work side by side on a machine, at least one."""
    room = cpus // resources.cpus_per_device
    if resources.max_concurrent and resources.devices_per_trial != "auto":
        room = min(room, resources.max_concurrent * resources.devices_per_trial)
    return max(1, room)


def fits(trial: Trial, layout: Layout, resources: Resources) -> bool:
    """True when a device holds its part of a run, or nothing is known against it."""
    room = device_bytes(resources)
    memory = None if room is None else memory_on_device(trial, layout, resources)
    return memory is None or room is None or memory.total <= room


def layout_faults(trial: Trial, resources: Resources, sharding: Sharding) -> list[Fault]:
    """Return what is wrong with how a trial would be laid out: devices that do not divide its batch, settings of
    DeepSpeed, and, where the study says how large a device is, what does not fit."""
    return list(_faults(trial, resources, sharding))


def _faults(trial: Trial, resources: Resources, sharding: Sharding) -> Iterator[Fault]:
    possible = [*_layouts(trial, resources, sharding)]
    chosen = possible[0]
    if resources.device_gb is not None:
        fitting = [layout for layout in possible if fits(trial, layout, resources)]
        if not fitting:
            yield Fault("resources.device_gb", _refusal(trial, possible[-1], resources))
        chosen = next(iter(fitting), chosen)
    yield from deepspeed_faults(trial.recipe, chosen)


def _layouts(trial: Trial, resources: Resources, sharding: Sharding) -> Iterator[Layout]:
    """Yield the layouts that a study allows, in the order of preference; there is at least one."""
    asked = resources.devices_per_trial
    batch = trial.recipe.batch_size
    powers = takewhile(lambda count: batch % count == 0, (1 << power for power in range(batch.bit_length())))
    for devices in powers if asked == "auto" else (asked,):
        for stage in _stages(devices, sharding):
            yield Layout(
                devices=devices,
                micro_batch_size=_micro_batch(trial, devices),
                recompute_activations=sharding.recompute_activations,
                zero_stage=stage,
                offload_optimizer=sharding.offload_optimizer,
                offload_parameters=sharding.offload_parameters,
                nvme_path=sharding.nvme_path,
                deepspeed=sharding.deepspeed,
            )


def _stages(devices: int, sharding: Sharding) -> tuple[ZeroStage, ...]:
    """Return the ZeRO stages to choose from. One device has nobody to share with: there a stage serves only what
    offloads, or what the user's own settings say."""
    least = least_zero_stage(sharding.offload_optimizer, sharding.offload_parameters)
    if devices == 1 and least == 0 and sharding.deepspeed is None:
        return (0,)
    if sharding.zero_stage != "auto":
        return (sharding.zero_stage,)
    return _STAGES[least : least + 1] if devices == 1 else _STAGES[least:]


def _micro_batch(trial: Trial, devices: int) -> int:
    share = max(1, trial.recipe.batch_size // devices)
    return min(trial.recipe.micro_batch_size or share, share)


def _is_open(resources: Resources, sharding: Sharding) -> bool:
    return resources.devices_per_trial == "auto" or (sharding.zero_stage == "auto" and resources.devices_per_trial > 1)


def _refusal(trial: Trial, layout: Layout, resources: Resources) -> str:
    """Say what a layout needs and what there is, and the first rung of the ladder that would do."""
    memory, room = memory_on_device(trial, layout, resources), device_bytes(resources)
    if memory is None or room is None:
        raise ValueError("what is not known is never refused")
    least = f", on {layout.devices} devices at ZeRO stage {layout.zero_stage}" if layout.devices > 1 else ""
    return (
        f"needs {memory.total / 1e9:.3g} GB on each device{least}, and a device has {room / 1e9:.3g} GB; "
        f"{_advice(trial, layout, resources)}"
    )


def _advice(trial: Trial, layout: Layout, resources: Resources) -> str:
    rung = next_rung(layout, trial.recipe)
    while rung is not None:
        if fits(trial, rung, resources):
            changes = [f"recipe.micro_batch_size = {rung.micro_batch_size}"]
            if rung.recompute_activations and not layout.recompute_activations:
                changes.append("sharding.recompute_activations = true")
            if rung.zero_stage > layout.zero_stage:
                changes.append(f"sharding.zero_stage = {rung.zero_stage}")
            return f"it would fit with {', '.join(changes)}"
        rung = next_rung(rung, trial.recipe)
    more = "" if resources.devices_per_trial == "auto" else "more resources.devices_per_trial, "
    return f'try {more}sharding.offload_optimizer = "cpu" (with GPUs), an [adapter], or a smaller model'
