"""Retries a run that is out of memory, rung by rung with layouts that need less, and with the same batches.

Each rung is noted on the run. At the end of the ladder the run is infeasible, which is not the same as bad: it says
nothing about the quality of its hyperparameters.
"""

from collections.abc import Callable

from showhow.errors import OutOfMemoryError, TrialError
from showhow.machines.assignment import Assignment, Note
from showhow.machines.fitting import highest_stage
from showhow.machines.layout import Layout, next_rung

INFEASIBLE = "infeasible: "  # prefix of the reason of a run that fits in no layout


def climb(run: Assignment, attempt: Callable[[Assignment], None], note: Note) -> None:
    """Attempt a run; each time it raises OutOfMemoryError attempt it again, with the layout of the next rung. It
    resumes from its latest checkpoint.

    Raises TrialError, with the rungs that were tried, after the last one."""
    tried = [in_words(run.layout)]
    while True:
        try:
            attempt(run)
            return
        except OutOfMemoryError as error:
            examples, problem, asked_at_once = error.examples, str(error), error.asked_at_once
        # Only here, after the error and its frames are gone, can the memory be freed.
        _free()
        layout = next_rung(run.layout, run.trial.recipe, asked_at_once, highest_stage(run.trial))
        if layout is None:
            raise TrialError(f"{INFEASIBLE}{problem}; tried: {'; '.join(tried)}{_advice(run.layout)}")
        note("adapted", examples, f"{problem}; was {tried[-1]}, is now {in_words(layout)}")
        tried.append(in_words(layout))
        run = run.model_copy(update={"layout": layout})


def in_words(layout: Layout) -> str:
    """Return the parts of a layout that rungs change, for people."""
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
    return f". More resources.devices_per_trial{offload} may help"


def _free() -> None:
    from showhow.training.memory import give_back_memory  # loads torch, which the starter of a spread run does not need

    give_back_memory()
