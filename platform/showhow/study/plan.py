"""Estimates a study's cost before it starts: runs, tokens, disk; for each model its layout, memory, arithmetic
and hours. Based on formulas and sampled problems."""

from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import NamedTuple

from showhow.machines.arithmetic import nominal_flops, training_seconds
from showhow.machines.budget import planned_examples
from showhow.machines.estimate import Memory, memory_of
from showhow.machines.fitting import device_bytes, fitting_layout_of
from showhow.machines.layout import Layout
from showhow.models.lengths import Lengths, mean_symbols, training_lengths
from showhow.models.sizes import ModelSizes, sizes_of
from showhow.sections.dataset_spec import DatasetSpec
from showhow.sections.recipe import ScratchModel
from showhow.sections.trial import Trial
from showhow.study.search_space import applying
from showhow.study.study import Study

# Parquet with zstd, and Arrow with 4 bytes a token, its text and its offsets. Four sets of modular_sum and listops
# datasets took 85% to 97% of this.
_DISK_BYTES_PER_SYMBOL, _DISK_BYTES_PER_ROW = 7, 10
# What a run saves to resume from: weights and AdamW's two moments in float32; and what it saves at its end.
_STATE_BYTES_PER_PARAMETER, _WEIGHT_BYTES_PER_PARAMETER = 12, 4


@dataclass(frozen=True)
class ArmPlan:
    """One arm: its trials, and the mean length in symbols of question and target."""

    arm: str
    trials: int
    prompt_symbols: float
    target_symbols: float


@dataclass(frozen=True)
class ModelPlan:
    """One model in one layout. memory: of a device, the maximum over its trials; hours: of a run, the maximum. Both are
    None, as parameters are, for a pretrained model that is not on this disk; hours also if a GPU's speed is not set.
    fits: False if a device is known to have less memory."""

    name: str
    trials: int
    layout: Layout
    parameters: int | None
    trained: int | None
    memory: Memory | None
    fits: bool
    flops: float | None
    hours: float | None


@dataclass(frozen=True)
class Plan:
    """A study's cost. Training figures are upper bounds: stop rules and goals only lower them. parameters, flops,
    memory_bytes_per_run (of a device) and hours (of the study, with `at_once` parallel runs) are None if one model's
    are. at_once: parallel runs on a machine of `cpus` CPUs. state_bytes: what a run saves to resume from; kept_bytes:
    what the best runs save. train_examples and train_tokens are None if a budget in FLOPs pays for an unknown
    number."""

    arms: tuple[ArmPlan, ...]
    models: tuple[ModelPlan, ...]
    trials: int
    seeds: int
    datasets: int
    dataset_rows: int
    train_examples: int | None
    train_tokens: int | None
    parameters: int | None
    flops: float | None
    disk_bytes: int
    memory_bytes_per_run: int | None
    device_bytes: int | None
    at_once: int
    hours: float | None
    state_bytes: int | None
    kept_bytes: int | None

    @property
    def runs(self) -> int:
        """Trials times seeds."""
        return self.trials * self.seeds


class _Cost(NamedTuple):
    """The cost of a run of a trial. examples: trained on, 0 if unknown (then not is_counted); flops: nominal; seconds:
    of the devices that train it together."""

    trial: Trial
    examples: int
    is_counted: bool
    layout: Layout
    lengths: Lengths
    sizes: ModelSizes | None
    memory: Memory | None
    flops: float | None
    seconds: float | None


def make_plan(study: Study, cpus: int) -> Plan:
    """Return a study's estimated cost. `cpus`: of the machine or cluster that it will run on.

    Raises UserError when a model fits in no layout that the study allows."""
    costs = [_cost(trial, study) for trial in planned_trials(study)]
    trials = [cost.trial for cost in costs]
    specs = {spec.fingerprint: spec for trial in trials for spec in map(trial.dataset, trial.splits)}
    seeds = len(study.seeds)
    at_once = _at_once(study, costs, cpus)
    known = [(cost.sizes, cost.memory, cost.flops) for cost in costs if cost.sizes and cost.memory and cost.flops]
    all_known = len(known) == len(costs)
    are_counted = all(cost.is_counted for cost in costs)
    trained = max((sizes.trained for sizes, _, _ in known), default=0)
    return Plan(
        arms=tuple(_arm_plan(arm.name, trials) for arm in study.arms),
        models=tuple(_model_plans(costs, device_bytes(study.resources))),
        trials=len(trials),
        seeds=seeds,
        datasets=len(specs),
        dataset_rows=sum(spec.examples for spec in specs.values()),
        train_examples=seeds * sum(cost.examples for cost in costs) if are_counted else None,
        train_tokens=seeds * sum(map(_tokens, costs)) if are_counted else None,
        parameters=max(sizes.parameters for sizes, _, _ in known) if all_known else None,
        flops=seeds * sum(flops for _, _, flops in known) if all_known else None,
        disk_bytes=sum(_disk_bytes(spec) for spec in specs.values()),
        memory_bytes_per_run=max(memory.total for _, memory, _ in known) if all_known else None,
        device_bytes=device_bytes(study.resources),
        at_once=at_once,
        hours=_hours(costs, seeds, at_once),
        state_bytes=_STATE_BYTES_PER_PARAMETER * trained if all_known else None,
        kept_bytes=_WEIGHT_BYTES_PER_PARAMETER * trained * study.checkpoints.keep_best if all_known else None,
    )


def planned_trials(study: Study) -> tuple[Trial, ...]:
    """Return the trials; for an adaptive search, as many at the lower bounds of its axes."""
    if study.search.algorithm == "random":
        return study.trials
    lows = {name: axis.extremes[0] for name, axis in study.search.axes.items()}
    groups = product(range(study.search.samples), study.settings, study.arms)
    points = [applying(lows | setting | arm.values) for _, setting, arm in groups]
    return tuple(study.trial(study.trial_name(index), point) for index, point in enumerate(points))


def _cost(trial: Trial, study: Study) -> _Cost:
    lengths, sizes, planned = training_lengths(trial), sizes_of(trial), planned_examples(trial)
    layout = fitting_layout_of(trial, study.resources, study.sharding)
    if sizes is None:
        return _Cost(trial, planned or 0, planned is not None, layout, lengths, None, None, None, None)
    memory = memory_of(trial, sizes, lengths, layout, study.resources.gpus_per_device > 0)
    seconds = training_seconds(sizes, lengths, layout, trial.recipe, study.resources, planned or 0)
    flops = nominal_flops(sizes, round(lengths.tokens * (planned or 0)))
    return _Cost(trial, planned or 0, planned is not None, layout, lengths, sizes, memory, flops, seconds)


def _tokens(cost: _Cost) -> int:
    return round(cost.lengths.tokens * cost.examples)


def _at_once(study: Study, costs: list[_Cost], cpus: int) -> int:
    """Count the runs that fit, if all were as large as the largest."""
    devices = max(cost.layout.devices for cost in costs)
    room = cpus // (study.resources.cpus_per_device * devices)
    return min(room, study.resources.max_concurrent or room, len(costs) * len(study.seeds))


def _hours(costs: list[_Cost], seeds: int, at_once: int) -> float | None:
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    if len(seconds) < len(costs) or not at_once:
        return None
    return max(seeds * sum(seconds) / at_once, max(seconds)) / 3600


def _model_plans(costs: list[_Cost], room: int | None) -> list[ModelPlan]:
    """Group trials by model and layout."""
    groups: dict[tuple[str, int | None, str], list[_Cost]] = {}
    for cost in costs:
        trained = cost.sizes.trained if cost.sizes else None
        key = (_model_name(cost.trial), trained, cost.layout.model_dump_json())
        groups.setdefault(key, []).append(cost)
    return [_model_plan(name, group, room) for (name, _, _), group in groups.items()]


def _model_plan(name: str, costs: list[_Cost], room: int | None) -> ModelPlan:
    sizes, layout = costs[0].sizes, costs[0].layout
    memories = [cost.memory for cost in costs if cost.memory is not None]
    memory = max(memories, key=lambda one: one.total, default=None)
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    return ModelPlan(
        name=name,
        trials=len(costs),
        layout=layout,
        parameters=sizes.parameters if sizes else None,
        trained=sizes.trained if sizes else None,
        memory=memory,
        fits=memory is None or room is None or memory.total <= room,
        flops=max((cost.flops for cost in costs if cost.flops is not None), default=None),
        hours=max(seconds) / 3600 if seconds else None,
    )


def _model_name(trial: Trial) -> str:
    model = trial.model
    if isinstance(model, ScratchModel):
        return f"{model.architecture} {model.hidden_size} x {model.layers}"
    return model.name.rstrip("/").rpartition("/")[2]


def _arm_plan(arm: str, trials: list[Trial]) -> ArmPlan:
    of_arm = [trial for trial in trials if trial.arm == arm]
    lengths = [training_lengths(trial) for trial in of_arm]
    prompt, target = fmean(one.prompt for one in lengths), fmean(one.target for one in lengths)
    return ArmPlan(arm, len(of_arm), prompt, target)


def _disk_bytes(spec: DatasetSpec) -> int:
    return round(spec.examples * (mean_symbols(spec).tokens * _DISK_BYTES_PER_SYMBOL + _DISK_BYTES_PER_ROW))
