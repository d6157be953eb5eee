"""What happens when a run's memory runs out: it is tried again laid out otherwise, rung by rung, with the same batches.

Each rung is noted on the run. At the end of the ladder the run is infeasible, which is told apart from a bad one: it
says nothing about its hyperparameters' quality.
"""

from collections.abc import Callable

from showhow.errors import OutOfMemoryError, TrialError
from showhow.machines.assignment import Assignment, Note
from showhow.machines.fitting import highest_stage
from showhow.machines.layout import Layout, next_rung

INFEASIBLE = "infeasible: "  # begins the reason of a run that no layout could hold


def climb(run: Assignment, attempt: Callable[[Assignment], None], note: Note) -> None:
    """Attempt a run; each time it raises OutOfMemoryError attempt it again, laid out as the next rung says. It goes on
    from its latest checkpoint by itself.

    Raises TrialError, with the rungs that were tried, when there is none left."""
    tried = [in_words(run.layout)]
    while True:
        try:
            attempt(run)
            return
        except OutOfMemoryError as error:
            examples, problem, asked_at_once = error.examples, str(error), error.asked_at_once
        # Only here, when the error with all that its frames refer to is gone, is the memory free.
        _free()
        layout = next_rung(run.layout, run.trial.recipe, asked_at_once, highest_stage(run.trial))
        if layout is None:
            raise TrialError(f"{INFEASIBLE}{problem}; tried were {'; '.join(tried)}{_advice(run.layout)}")
        note("adapted", examples, f"{problem}; was {tried[-1]}, is now {in_words(layout)}")
        tried.append(in_words(layout))
        run = run.model_copy(update={"layout": layout})


def in_words(layout: Layout) -> str:
    """Return what of a layout the rungs change, for people."""
    words = [f"micro-batches of {layout.micro_batch_size}"]
    if layout.recompute_activations:
        words.append("activations recomputed")
    if layout.devices > 1:
        words.append(f"ZeRO stage {layout.zero_stage} over {layout.devices} devices")
    if layout.asked_at_once is not None:
        words.append(f"replies to {layout.asked_at_once} questions at a time")
    return ", ".join(words)


def _advice(layout: Layout) -> str:
    offload = "" if layout.offload_optimizer != "none" else " or sharding.offload_optimizer"
    return f". More resources.devices_per_trial{offload} may hold it"


def _free() -> None:
    from showhow.training.memory import give_back_memory  # loads torch, which who only starts others does not need

    give_back_memory()
