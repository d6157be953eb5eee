"""How many examples a run's budget pays for, and how often the run is evaluated. Estimated before the run starts, from
mean lengths and the model's size; a run counts what it really spends. Pure."""

from collections.abc import Iterator

from showhow.machines.arithmetic import nominal_flops
from showhow.models.lengths import training_lengths
from showhow.models.sizes import sizes_of
from showhow.sections.budget import Budget
from showhow.sections.faults import Fault
from showhow.sections.trial import Trial

_EVALUATIONS = 20  # during a run, where the study does not set evaluation.every_examples


def example_costs(trial: Trial) -> float | None:
    """Return the mean cost of training on one example, in the unit of the trial's budget; None where the unit is FLOPs
    and the model's size is unknown because its weights are not on this disk."""
    if trial.budget.unit == "examples":
        return 1.0
    tokens = training_lengths(trial).tokens
    if trial.budget.unit == "tokens":
        return tokens
    sizes = sizes_of(trial)
    return None if sizes is None else nominal_flops(sizes, tokens)


def planned_examples(trial: Trial) -> int | None:
    """Return the number of training examples that a trial's budget pays for if all of it is spent on training; for
    tokens and FLOPs, a multiple of the batch size. None where the cost of an example is not known."""
    cost = example_costs(trial)
    if cost is None:
        return None
    examples = int(trial.budget.amount / cost)
    return examples if trial.budget.unit == "examples" else examples - examples % trial.recipe.batch_size


def evaluate_every(trial: Trial) -> int:
    """Return the number of training examples between two evaluations: as the study sets it, else a twentieth of the
    examples that the budget pays for (of train_examples, where that is not known)."""
    if trial.evaluation.every_examples is not None:
        return trial.evaluation.every_examples
    examples = planned_examples(trial) or trial.data.train_examples
    return max(trial.recipe.batch_size, examples // _EVALUATIONS)


def budget_faults(trial: Trial) -> Iterator[Fault]:
    """Yield the settings that a budget in tokens or FLOPs is too small for; a budget in examples is checked with the
    recipe."""
    cost, examples, budget = example_costs(trial), planned_examples(trial), trial.budget
    if cost is None or examples is None or budget.unit == "examples":
        return
    batch, every, warmup = trial.recipe.batch_size, trial.evaluation.every_examples, trial.recipe.warmup_examples
    if examples < batch:
        takes = f"the first batch of {batch} examples takes about {batch * cost:.2g}"
        yield Fault("budget.amount", f"got {_in_words(budget)}, with which no run can begin: {takes}")
        return
    pays = f"the budget of {_in_words(budget)} pays for about {examples:,} examples"
    if warmup >= examples:
        yield Fault("recipe.warmup_examples", f"got {warmup:,}, but {pays}, so nothing is left after the warm-up")
    if every is not None and every > examples:
        yield Fault("evaluation.every_examples", f"got {every:,}, but {pays}")


def _in_words(budget: Budget) -> str:
    """Return `24,000 tokens`, or `3e+13 FLOPs`."""
    if budget.unit == "flops":
        return f"{budget.amount:g} FLOPs"
    return f"{budget.amount:,.0f} {budget.unit}"
