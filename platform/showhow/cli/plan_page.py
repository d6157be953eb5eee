"""What `showhow plan` prints."""

from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from showhow.evidence.wording import counted, unit_in_words
from showhow.machines.arithmetic import CPU_FLOPS, SHARE_OF_PEAK
from showhow.machines.layout import Layout
from showhow.sections.resources import Resources
from showhow.study.plan import ModelPlan, Plan, planned_trials
from showhow.study.study import Study

_NOT_HERE = "unknown until the model is on this disk (hf download NAME)"


def print_plan(console: Console, study: Study, plan: Plan, cpus: int) -> None:
    """Print a plan. `cpus`: of the machine it was made for."""
    console.print(f"{study.name} · {study.question}\n", soft_wrap=True)
    arms = _table(", ".join(study.by), "trials", "tokens per question", "tokens per target")
    for arm in plan.arms:
        arms.add_row(arm.arm, str(arm.trials), f"{arm.prompt_symbols:.1f}", f"{arm.target_symbols:.1f}")
    console.print(arms)
    console.print()
    console.print(_models(plan))
    facts = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for name, text in _facts(study, plan, cpus).items():
        facts.add_row(name, text)
    facts.add_row("recipe", Columns([f"{key} = {value}" for key, value in _recipe(study).items()], padding=(0, 2)))
    console.print()
    console.print(facts)


def _table(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, justify="left" if not number or header == "layout" else "right")
    return table


def _models(plan: Plan) -> Table:
    """A row for each model and layout; figures are maxima over its runs."""
    table = _table("model", "trials", "parameters", "layout", "GB per device", "FLOPs per run", "time per run")
    for model in plan.models:
        table.add_row(
            model.name,
            str(model.trials),
            _parameters(model),
            in_words(model.layout),
            "?" if model.memory is None else f"{model.memory.total / 1e9:.2f}" + ("" if model.fits else " (too much)"),
            "?" if model.flops is None else f"{model.flops:.2g}",
            "?" if model.hours is None else _duration(model.hours),
        )
    return table


def in_words(layout: Layout) -> str:
    """Return a layout for people: `2 devices, ZeRO 2, optimizer on CPU`."""
    words = ["1 device" if layout.devices == 1 else f"{layout.devices} devices"]
    if layout.zero_stage or layout.devices > 1:
        words.append(f"ZeRO {layout.zero_stage}")
    for what, where in (("optimizer", layout.offload_optimizer), ("parameters", layout.offload_parameters)):
        if where != "none":
            words.append(f"{what} on {where.upper() if where == 'cpu' else where}")
    if layout.recompute_activations:
        words.append("activations recomputed")
    return ", ".join(words)


def _parameters(model: ModelPlan) -> str:
    if model.parameters is None or model.trained is None:
        return "?"
    trained = "" if model.trained == model.parameters else f" + {_count(model.trained)} trained"
    return _count(model.parameters) + trained


def _count(number: int) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M")):
        if number >= unit:
            return f"{number / unit:.1f}{name}"
    return f"{number:,}"


def _facts(study: Study, plan: Plan, cpus: int) -> dict[str, str]:
    resources = study.resources
    where = f"{plan.at_once} at once on {cpus} CPUs" if plan.at_once else f"none fits on {cpus} CPUs"
    if resources.gpus_per_device:
        where += f", each device with {resources.gpus_per_device:g} GPU"
    settings = {"settings": f"{len(study.settings)}, by {', '.join(study.within)}"} if study.within else {}
    budget = study.budget
    if budget is not None:
        amount = f"{budget.amount:g}" if budget.unit == "flops" else f"{budget.amount:,.0f}"
        settings["budget"] = f"{amount} {unit_in_words(budget.unit)} a run"
    return settings | {
        "runs": f"{plan.runs} ({counted(plan.trials, 'trial')} x {counted(plan.seeds, 'seed')}), {where}",
        "datasets": f"{plan.datasets}, {plan.dataset_rows:,} rows, about {plan.disk_bytes / 1e6:,.1f} MB on disk",
        "training": _training(plan),
        "model": _NOT_HERE if plan.parameters is None else f"{plan.parameters:,} parameters",
        "arithmetic": _NOT_HERE if plan.flops is None else f"about {plan.flops:.2g} FLOPs (6 x parameters x tokens)",
        "memory": _memory(plan, resources),
        "time": _time(plan, resources),
        "checkpoints": _checkpoints(study, plan),
    }


def _training(plan: Plan) -> str:
    if plan.train_examples is None or plan.train_tokens is None:
        return _NOT_HERE
    return f"at most {plan.train_examples:,} examples, about {plan.train_tokens / 1e6:,.1f} million tokens"


def _memory(plan: Plan, resources: Resources) -> str:
    memories = [model.memory for model in plan.models if model.memory is not None]
    if plan.memory_bytes_per_run is None or not memories:
        return _NOT_HERE
    largest = max(memories, key=lambda memory: memory.total)
    named = {name.replace("process", "the program"): size for name, size in largest.parts.items() if size >= 0.005e9}
    parts = ", ".join(f"{name} {_size(size)}" for name, size in named.items())
    text = f"about {largest.total / 1e9:.2f} GB per device: {parts}"
    if largest.host:
        text += f"; and {_size(largest.host)} of the machine's"
    if plan.device_bytes is None:
        return f"{text}. Set resources.device_gb to check it against a GPU"
    if all(model.fits for model in plan.models):
        return f"{text}; a device has {_size(plan.device_bytes)}"
    do = "" if resources.gpus_per_device else ", or fewer runs at once (resources.max_concurrent)"
    return f'{text}. TOO MUCH: a device has {_size(plan.device_bytes)}; set devices_per_trial = "auto"{do}'


def _time(plan: Plan, resources: Resources) -> str:
    if plan.hours is None:
        return "unknown: set resources.device_tflops" if resources.gpus_per_device else "unknown"
    if resources.device_tflops is not None:
        how = f"{SHARE_OF_PEAK:.0%} of {resources.device_tflops:g} TFLOP/s a device"
    else:
        how = (
            f"{CPU_FLOPS['float32'] / 1e9:.0f} GFLOP/s a CPU in float32, {CPU_FLOPS['bfloat16'] / 1e9:.0f} in bfloat16"
        )
    return f"about {_duration(plan.hours)} of training if no run is stopped, assuming {how}"


def _duration(hours: float) -> str:
    for unit, name in ((24, "days"), (1, "h")):
        if hours >= 2 * unit:
            return f"{hours / unit:.1f} {name}"
    return f"{60 * hours:.0f} min" if hours >= 0.05 else f"{3600 * hours:.0f} s"


def _checkpoints(study: Study, plan: Plan) -> str:
    checkpoints = study.checkpoints
    if plan.state_bytes is None or plan.kept_bytes is None:
        return f"at most {checkpoints.budget_gb:g} GB"
    count = checkpoints.keep_best
    best = f"{count} best runs' weights {_size(plan.kept_bytes)}" if count else "no weights"
    state = f"{_size(plan.state_bytes)} for each active run (12 bytes a trained parameter)"
    return f"{best}, {state}; at most {checkpoints.budget_gb:g} GB"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _recipe(study: Study) -> dict[str, object]:
    recipe = planned_trials(study)[0].recipe.model_dump(exclude_none=True)
    return {key: "searched" if key in study.search.axes else value for key, value in recipe.items()}
