"""DeepSpeed's JSON for a run, and the user's own settings that contradict the study. Pure.

Weights, gradients and AdamW's moments are float32, as in a run on one device, and matrix products are computed in
bfloat16 by autocast (`torch_autocast`), so a layout changes only rounding. Each of n devices stores, in bytes per
trained parameter: 16 at ZeRO stage 0 (weight, gradient, two moments); 8 + 12/n at stage 1 (DeepSpeed copies the weights
of its part); 4 + 16/n at stage 2; 16/n at stage 3. In float16, DeepSpeed scales losses only if the weights are float16
too: then 4 + 12/n at stage 1, the lowest possible; 2 + 14/n; 16/n. Buckets, and the weights gathered for a layer, are
added to that.

Names are those of https://www.deepspeed.ai/docs/config-json/ and of DeepSpeed 0.19.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from showhow.errors import nearest
from showhow.machines.layout import Layout
from showhow.sections.faults import Fault, shown
from showhow.sections.recipe import Recipe
from showhow.sections.resources import Offload, ZeroStage

Precision = Literal["float32", "bfloat16", "float16"]
Settings = dict[str, Any]
Path = tuple[str, ...]

# Numbers communicated at a time: 200 MB in float32, enough to fill a fast link, and a tenth of DeepSpeed's default.
_BUCKET = 50_000_000

# Sections that the user may fill freely. DeepSpeed checks what they contain (training.deepspeed_engine.check_settings),
# but ignores a section that it does not know.
_OPEN = (
    "aio",
    "comet",
    "comms_logger",
    "communication_data_type",
    "compile",
    "csv_monitor",
    "data_types",
    "disable_python_gc",
    "dump_state",
    "flops_profiler",
    "gradient_predivide_factor",
    "log_level",
    "memory_breakdown",
    "prescale_gradients",
    "seq_parallel_communication_data_type",
    "steps_per_print",
    "tensorboard",
    "timers",
    "wall_clock_breakdown",
    "wandb",
    "zero_optimization",
)
# Settings that are decided elsewhere, and where.
_OPTIMIZER = "recipe.learning_rate, weight_decay, beta_1 and beta_2"
_PRECISION = "recipe.precision"
_DATA = "this program distributes the batches"
_PARALLEL = "only the batch is divided over devices"
_DECIDED = {
    "activation_checkpointing": "sharding.recompute_activations",
    "autotuning": "a search space tries settings out",
    "bf16": _PRECISION,
    "bfloat16": _PRECISION,
    "checkpoint": "[checkpoints]",
    "data_efficiency": _DATA,
    "dataloader_drop_last": _DATA,
    "expert_parallel": _PARALLEL,
    "fp16": _PRECISION,
    "gradient_accumulation_steps": "recipe.batch_size and micro_batch_size",
    "gradient_allreduce_op": "the loss is the mean over all target tokens of the batch",
    "gradient_clipping": "recipe.gradient_clip",
    "hybrid_engine": "evaluation writes replies itself",
    "managed_gradient_accumulation": "recipe.batch_size and micro_batch_size",
    "optimizer": _OPTIMIZER,
    "pipeline": _PARALLEL,
    "scheduler": "recipe.schedule and warmup_examples",
    "sequence_parallel_size": _PARALLEL,
    "tensor_parallel": _PARALLEL,
    "torch_autocast": _PRECISION,
    "train_batch_size": "recipe.batch_size",
    "train_micro_batch_size_per_gpu": "recipe.micro_batch_size",
    "weight_quantization": "model.quantise",
    "zero_allow_untested_optimizer": _OPTIMIZER,
    "zero_force_ds_cpu_optimizer": _OPTIMIZER,
}


def deepspeed_config(recipe: Recipe, layout: Layout, precision: Precision, parameters: int) -> Settings:
    """Return the JSON for `deepspeed.initialize`; the engine passes the optimizer and sets its learning rate.

    precision: the recipe's precision, resolved for the device. parameters: the number of trained parameters, which is
    the largest useful bucket."""
    settings: Settings = {
        "train_micro_batch_size_per_gpu": layout.micro_batch_size,
        "gradient_accumulation_steps": -(-recipe.batch_size // (layout.devices * layout.micro_batch_size)),
        "gradient_clipping": recipe.gradient_clip,
        "zero_optimization": _zero_optimization(layout, precision, parameters),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's own AdamW on a CPU needs no compiler there
    }
    if precision == "bfloat16":
        settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    if precision == "float16":
        settings["fp16"] = {"enabled": True, "loss_scale": 0}
    fixed = _fixed(recipe, layout)
    for path, value in _leaves(layout.deepspeed or {}):
        if value != "auto" and path not in fixed and path[0] not in _DECIDED:
            _put(settings, path, value)
    return settings


def open_settings(own: Mapping[str, Any]) -> Settings:
    """Return those of the user's own DeepSpeed settings that the user may choose freely."""
    return {name: value for name, value in own.items() if name in _OPEN}


def least_zero_stage(offload_optimizer: Offload, offload_parameters: Offload) -> ZeroStage:
    """Return the lowest ZeRO stage at which DeepSpeed supports this offloading."""
    if offload_parameters != "none" or offload_optimizer == "nvme":
        return 3
    return 1 if offload_optimizer == "cpu" else 0


def deepspeed_faults(recipe: Recipe, layout: Layout) -> list[Fault]:
    """Return what is wrong with a layout and the user's own DeepSpeed settings in it: sections that DeepSpeed does not
    know, and settings that contradict the study. A setting that agrees with the study, or is "auto", is no fault."""
    return [*_layout_faults(recipe, layout), *_setting_faults(recipe, layout)]


def _zero_optimization(layout: Layout, precision: Precision, parameters: int) -> Settings:
    bucket = min(_BUCKET, max(2, parameters + parameters % 2))  # DeepSpeed needs an even number
    stage = max(layout.zero_stage, 1 if precision == "float16" else 0)  # at stage 0 it has no float32 weights
    settings: Settings = {"stage": stage}
    if stage > 0:
        settings |= {"overlap_comm": True, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if stage == 3:
        settings["stage3_prefetch_bucket_size"] = bucket
    for name, device in (("offload_optimizer", layout.offload_optimizer), ("offload_param", layout.offload_parameters)):
        if device != "none":
            settings[name] = {"device": device} | ({"nvme_path": layout.nvme_path} if device == "nvme" else {})
    return settings


class _Fixed(NamedTuple):
    """What the study fixes of one of DeepSpeed's settings: by which of its own settings, and the values that agree."""

    by: str
    values: tuple[Any, ...]


def _fixed(recipe: Recipe, layout: Layout) -> dict[Path, _Fixed]:
    def is_on(precision: str) -> _Fixed:
        # `auto` never resolves to float16.
        is_open = recipe.precision == "auto" and precision == "bfloat16"
        possible = (True, False) if is_open else (recipe.precision == precision,)
        return _Fixed(f'recipe.precision = "{recipe.precision}"', possible)

    optimizer = {
        "lr": _Fixed(f"recipe.learning_rate = {recipe.learning_rate:g}", (recipe.learning_rate,)),
        "betas": _Fixed(
            f"recipe.beta_1 = {recipe.beta_1:g} and beta_2 = {recipe.beta_2:g}", ([recipe.beta_1, recipe.beta_2],)
        ),
        "eps": _Fixed("eps is 1e-8", (1e-8,)),
        "weight_decay": _Fixed(f"recipe.weight_decay = {recipe.weight_decay:g}", (recipe.weight_decay,)),
    }
    steps = recipe.batch_size // (layout.devices * layout.micro_batch_size)
    micro = _Fixed(
        f"recipe.batch_size = {recipe.batch_size} on {layout.devices} devices, at most {layout.micro_batch_size} at a "
        "time (recipe.micro_batch_size)",
        (layout.micro_batch_size,),
    )
    zero = "zero_optimization"
    return {
        ("train_batch_size",): _Fixed(f"recipe.batch_size = {recipe.batch_size}", (recipe.batch_size,)),
        ("train_micro_batch_size_per_gpu",): micro,
        ("gradient_accumulation_steps",): micro._replace(values=(steps,)),
        ("gradient_clipping",): _Fixed(f"recipe.gradient_clip = {recipe.gradient_clip:g}", (recipe.gradient_clip,)),
        ("bf16", "enabled"): is_on("bfloat16"),
        ("fp16", "enabled"): is_on("float16"),
        ("optimizer", "type"): _Fixed("the optimizer is AdamW", ("AdamW",)),
        **{("optimizer", "params", name): fixed for name, fixed in optimizer.items()},
        (zero, "stage"): _Fixed(f"sharding.zero_stage is {layout.zero_stage}", (layout.zero_stage,)),
        (zero, "offload_optimizer", "device"): _Fixed(
            f'sharding.offload_optimizer = "{layout.offload_optimizer}"', (layout.offload_optimizer,)
        ),
        (zero, "offload_param", "device"): _Fixed(
            f'sharding.offload_parameters = "{layout.offload_parameters}"', (layout.offload_parameters,)
        ),
        **{
            (zero, name, "nvme_path"): _Fixed(f"sharding.nvme_path is {shown(layout.nvme_path)}", (layout.nvme_path,))
            for name in ("offload_optimizer", "offload_param")
        },
    }


def _layout_faults(recipe: Recipe, layout: Layout) -> Iterator[Fault]:
    if recipe.batch_size % layout.devices:
        message = f"got {recipe.batch_size}, which cannot be divided evenly over {layout.devices} devices"
        yield Fault("recipe.batch_size", f"{message}; let it be a multiple of {layout.devices}")
    least = least_zero_stage(layout.offload_optimizer, layout.offload_parameters)
    if layout.zero_stage < least:
        message = f"got {layout.zero_stage}, but what [sharding] offloads needs {least} or more"
        yield Fault("sharding.zero_stage", f'{message}; write {least} or "auto", or offload less')
    if "nvme" in (layout.offload_optimizer, layout.offload_parameters) and not layout.nvme_path:
        yield Fault("sharding.nvme_path", 'is missing: write the folder of a fast disk, or offload to "cpu"')


def _setting_faults(recipe: Recipe, layout: Layout) -> Iterator[Fault]:
    fixed = _fixed(recipe, layout)
    for path, value in _leaves(layout.deepspeed or {}):
        key = ".".join(("sharding", "deepspeed", *path))
        if path[0] not in _OPEN and path[0] not in _DECIDED:
            yield Fault(key, f"DeepSpeed has no setting {path[0]}.{nearest(path[0], (*_OPEN, *_DECIDED))}")
        elif path == ("zero_optimization",):
            yield Fault(key, f"got {shown(value)}, must be a section, such as {{ overlap_comm = false }}")
        elif value != "auto" and path in fixed:
            if value not in fixed[path].values:
                yield Fault(key, f"got {shown(value)}, but {fixed[path].by}; leave it out here, or change that")
        elif value != "auto" and path[0] in _DECIDED:
            yield Fault(key, f"cannot be set here ({_DECIDED[path[0]]}); leave it out")


def _leaves(settings: Settings, before: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the value of every setting that is not a section."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*before, name))
        else:
            yield (*before, name), value


def _put(settings: Settings, path: Path, value: Any) -> None:
    for name in path[:-1]:
        settings = settings.setdefault(name, {})
    settings[path[-1]] = value
