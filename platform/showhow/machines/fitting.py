"""Which layout a trial gets: the fewest devices that it fits on, and the lowest ZeRO stage, by the estimate in
estimate.py; and what is wrong with a layout. Pure, except that it looks at what this machine has.
"""

from collections.abc import Iterator
from itertools import takewhile
from typing import get_args

from showhow.errors import UserError
from showhow.machines import machine
from showhow.machines.deepspeed_config import deepspeed_faults, least_zero_stage
from showhow.machines.estimate import Memory, memory_of
from showhow.machines.layout import Layout, next_rung
from showhow.models.lengths import training_lengths
from showhow.models.sizes import held_bits, sizes_of
from showhow.sections.faults import Fault
from showhow.sections.resources import Resources, Sharding, ZeroStage
from showhow.sections.trial import Trial

_STAGES: tuple[ZeroStage, ...] = get_args(ZeroStage)


def layout_of(trial: Trial, resources: Resources, sharding: Sharding) -> Layout:
    """Return the layout that a study sets; where the study leaves it open, the fewest devices (1, 2, 4, ... that divide
    the batch) and the lowest ZeRO stage at which each device's part fits. A model that is not on this disk, or a GPU of
    unknown size, is assumed to fit. Where no layout fits, return the one that partitions most."""
    possible = [*_layouts(trial, resources, sharding)]
    return next((layout for layout in possible if fits(trial, layout, resources)), possible[-1])


def fitting_layout_of(trial: Trial, resources: Resources, sharding: Sharding) -> Layout:
    """Return `layout_of`. Raises UserError when the study leaves the layout open and none fits."""
    layout = layout_of(trial, resources, sharding)
    refusal = _refusal(trial, layout, resources) if is_open(resources, sharding) else None
    if refusal is not None:
        raise UserError(f"{trial.name}: {refusal}")
    return layout


def memory_on_device(trial: Trial, layout: Layout, resources: Resources) -> Memory | None:
    """Estimate the memory of one device of a run; None where the model is not on this disk."""
    sizes = sizes_of(trial)
    if sizes is None:
        return None
    return memory_of(trial, sizes, training_lengths(trial), layout, resources.gpus_per_device > 0)


def device_bytes(resources: Resources) -> int | None:
    """Return the memory of one device of a trial in bytes: as the study sets it (of a share of a GPU, that share); else
    for CPUs this machine's memory, divided among the devices that can run at once; None for GPUs of unknown size."""
    if resources.device_gb is not None:
        return round(1e9 * resources.device_gb * (resources.gpus_per_device or 1))
    if resources.gpus_per_device:
        return None
    return machine.memory_bytes() // devices_at_once(resources, machine.cpu_count())


def devices_at_once(resources: Resources, cpus: int) -> int:
    """Return how many CPU devices run at once on a machine, at least one."""
    room = cpus // resources.cpus_per_device
    if resources.max_concurrent and resources.devices_per_trial != "auto":
        room = min(room, resources.max_concurrent * resources.devices_per_trial)
    return max(1, room)


def fits(trial: Trial, layout: Layout, resources: Resources) -> bool:
    """True when a device's part of a run fits, or is not known not to."""
    return _excess(trial, layout, resources) is None


def is_open(resources: Resources, sharding: Sharding) -> bool:
    """True where the study leaves a trial's layout to the estimate of memory."""
    return resources.devices_per_trial == "auto" or (sharding.zero_stage == "auto" and resources.devices_per_trial > 1)


def highest_stage(trial: Trial) -> ZeroStage:
    """Return the highest ZeRO stage that a trial's model allows: quantised weights cannot be partitioned."""
    return 3 if held_bits(trial.model) is None else 2


def layout_faults(trial: Trial, resources: Resources, sharding: Sharding) -> list[Fault]:
    """Return what is wrong with a trial's layout: devices that do not divide its batch, settings of DeepSpeed, and,
    where the study sets the size of a device, what does not fit."""
    if resources.device_gb is None:
        layout, refusal = next(_layouts(trial, resources, sharding)), None
    else:
        layout = layout_of(trial, resources, sharding)
        refusal = _refusal(trial, layout, resources)
    too_large = [] if refusal is None else [Fault("resources.device_gb", refusal)]
    return [*too_large, *deepspeed_faults(trial.recipe, layout), *_quantised_faults(trial, layout)]


def _quantised_faults(trial: Trial, layout: Layout) -> Iterator[Fault]:
    """Yield the settings that need ZeRO stage 3 where the weights are quantised and cannot be partitioned."""
    bits = held_bits(trial.model)
    if bits is None:
        return
    why = f"but weights in {bits} bits (model.quantise) can be neither partitioned nor moved"
    if layout.offload_parameters != "none":
        yield Fault("sharding.offload_parameters", f'got "{layout.offload_parameters}", {why}; write "none"')
    if layout.offload_optimizer == "nvme":
        yield Fault("sharding.offload_optimizer", f'got "nvme", for which ZeRO partitions weights, {why}; write "cpu"')
    if layout.zero_stage == 3 > least_zero_stage(layout.offload_optimizer, layout.offload_parameters):
        yield Fault("sharding.zero_stage", f"got 3, {why}; write 2 or less")


def _layouts(trial: Trial, resources: Resources, sharding: Sharding) -> Iterator[Layout]:
    """Yield the layouts that a study allows, in order of preference; there is at least one."""
    requested = resources.devices_per_trial
    batch = trial.recipe.batch_size
    powers = takewhile(lambda count: batch % count == 0, (1 << power for power in range(batch.bit_length())))
    for devices in powers if requested == "auto" else (requested,):
        for stage in _stages(devices, sharding, highest_stage(trial)):
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


def _stages(devices: int, sharding: Sharding, highest: ZeroStage) -> tuple[ZeroStage, ...]:
    """Return the ZeRO stages to choose from. One device has no other to partition over: there a stage is needed only
    for offloading, or for the user's own settings."""
    least = least_zero_stage(sharding.offload_optimizer, sharding.offload_parameters)
    if devices == 1 and least == 0 and sharding.deepspeed is None:
        return (0,)
    if sharding.zero_stage != "auto":
        return (sharding.zero_stage,)
    return _STAGES[least : 1 + (least if devices == 1 else max(least, highest))]


def _micro_batch(trial: Trial, devices: int) -> int:
    share = max(1, trial.recipe.batch_size // devices)
    return min(trial.recipe.micro_batch_size or share, share)


def _excess(trial: Trial, layout: Layout, resources: Resources) -> tuple[int, int] | None:
    """Return how many bytes a device would need and how many it has, where it is known to have less than it needs."""
    room = device_bytes(resources)
    memory = None if room is None else memory_on_device(trial, layout, resources)
    return None if memory is None or room is None or memory.total <= room else (memory.total, room)


def _refusal(trial: Trial, layout: Layout, resources: Resources) -> str | None:
    """Return a message with the memory that a layout needs, the memory of a device, and the first rung of the ladder
    that would fit; None where the layout fits."""
    excess = _excess(trial, layout, resources)
    if excess is None:
        return None
    needed, room = (f"{size / 1e9:.3g} GB" for size in excess)
    least = f", on {layout.devices} devices at ZeRO stage {layout.zero_stage}" if layout.devices > 1 else ""
    advice = _advice(trial, layout, resources)
    return f"needs {needed} on each device{least}, and a device has {room}; {advice}"


def _advice(trial: Trial, layout: Layout, resources: Resources) -> str:
    rung = next((rung for rung in _rungs(trial, layout) if fits(trial, rung, resources)), None)
    if rung is None:
        more = "" if resources.devices_per_trial == "auto" else "more resources.devices_per_trial, "
        return f'try {more}sharding.offload_optimizer = "cpu" (with GPUs), an [adapter], or a smaller model'
    changes = [f"recipe.micro_batch_size = {rung.micro_batch_size}"]
    if rung.recompute_activations and not layout.recompute_activations:
        changes.append("sharding.recompute_activations = true")
    if rung.zero_stage > layout.zero_stage:
        changes.append(f"sharding.zero_stage = {rung.zero_stage}")
    return f"it would fit with {', '.join(changes)}"


def _rungs(trial: Trial, layout: Layout) -> Iterator[Layout]:
    highest = highest_stage(trial)
    rung = next_rung(layout, trial.recipe, highest_stage=highest)
    while rung is not None:
        yield rung
        rung = next_rung(rung, trial.recipe, highest_stage=highest)
