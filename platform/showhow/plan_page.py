"""What `showhow plan` prints."""

from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from showhow.study.plan import Plan, planned_trials
from showhow.study.study import Study


def print_plan(console: Console, study: Study, plan: Plan, cpus: int) -> None:
    """Print a plan. `cpus`: those of the machine it was made for."""
    console.print(f"{study.name} · {study.question}\n", soft_wrap=True)
    levels = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for header in ("explanation", "trials", "tokens per question", "tokens per target"):
        levels.add_column(header, justify="left" if header == "explanation" else "right")
    for level in plan.levels:
        levels.add_row(level.level, str(level.trials), f"{level.prompt_symbols:.1f}", f"{level.target_symbols:.1f}")
    console.print(levels)
    facts = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for name, text in _facts(study, plan, cpus).items():
        facts.add_row(name, text)
    facts.add_row("recipe", Columns([f"{key} = {value}" for key, value in _recipe(study).items()], padding=(0, 2)))
    console.print()
    console.print(facts)


def _facts(study: Study, plan: Plan, cpus: int) -> dict[str, str]:
    unknown = "unknown until the model is on this disk"
    memory = plan.memory_bytes_per_run
    where = f"{plan.at_once} at once on {cpus} CPUs" if plan.at_once else f"none fits on {cpus} CPUs"
    if study.resources.gpus_per_device:
        where += f", each with {study.resources.gpus_per_device:g} GPUs"
    return {
        "runs": f"{plan.runs} ({plan.trials} trials x {plan.seeds} seeds), {where}",
        "datasets": f"{plan.datasets}, {plan.dataset_rows:,} rows, about {plan.disk_bytes / 1e6:,.1f} MB on disk",
        "training": f"at most {plan.train_examples:,} examples, about {plan.train_tokens / 1e6:,.1f} million tokens",
        "model": unknown if plan.parameters is None else f"{plan.parameters:,} parameters",
        "arithmetic": unknown if plan.flops is None else f"about {plan.flops:.2g} FLOPs (6 x parameters x tokens)",
        "memory": unknown if memory is None else f"about {memory / 1e9:.1f} GB per run",
    }


def _recipe(study: Study) -> dict[str, object]:
    recipe = planned_trials(study)[0].recipe.model_dump(exclude_none=True)
    return {key: "searched" if key in study.search.axes else value for key, value in recipe.items()}
