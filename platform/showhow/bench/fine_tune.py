"""Carries out one run: runs its method, and grades the resulting model.

It runs in one process or in several that train together. It uses neither Ray nor MLflow: its input is tokenised
datasets and functions that receive its messages.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace

from showhow.bench.bench import RunBench
from showhow.bench.job import HearStage, Job, Listeners, Report, unheard, unseen
from showhow.bench.models import StagedModel
from showhow.bench.training import Ending, reported
from showhow.errors import TrialError, UserError
from showhow.fingerprint import Json
from showhow.machines.assignment import Assignment, Note
from showhow.methods.base import Method
from showhow.metrics import TEST
from showhow.training.checkpoints.saving import Checkpoints
from showhow.training.loop import Progress


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: whether it reached its goal, the grade of each test question in the dataset's order, and
    sample replies by split."""

    reached_goal: bool
    grades: tuple[bool, ...]
    samples: dict[str, list[dict[str, Json]]]


def fine_tune(run: Assignment, report: Report, note: Note = unheard, stage: HearStage = unseen) -> Outcome:
    """Carry out one run, from its latest checkpoint if it has one, and report metrics (names as in metrics.py) after
    each evaluation and at the end. The processes that train together all call it, and all report the same.

    Raises TrialError when it cannot continue, OutOfMemoryError when the run does not fit with its layout, and OSError
    when a checkpoint cannot be written."""
    job = Job.of(run, Listeners(report, note, stage))
    with ExitStack() as stack:
        bench = RunBench(job, stack)
        model = _carried_out(run.trial.method, bench)
        return _graded(job, model, bench.ending, stack)


def _carried_out(method: Method, bench: RunBench) -> StagedModel:
    """Run a method. An error in a user's method is a fault of its trial."""
    try:
        model = method.run(bench, bench.prepared)
    except (TrialError, OSError, MemoryError):
        raise
    except UserError as error:  # from the method's data; the other runs may continue
        raise TrialError(str(error)) from error
    except Exception as error:
        if type(method).__module__.startswith("showhow."):
            raise
        raise TrialError(f"the method {method.kind} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, StagedModel):
        raise TrialError(
            f"the method {method.kind} returned {type(model).__name__}; run must return a model of the bench"
        )
    return model


def _graded(job: Job, model: StagedModel, ending: Ending | None, stack: ExitStack) -> Outcome:
    """Grade the model on the test split and the additional ones, save its weights, and make the last report."""
    evaluations, engine = job.evaluations, job.models.engine(model)
    if ending is None or ending.address != model.address:
        ending = _ending_of(job, model, stack)
    finals = evaluations.grade(engine)
    ending.checkpoints.save_weights(engine, evaluations.standing(ending.progress, ending.metrics))
    job.listeners.report(ending.metrics | evaluations.metrics(finals))
    samples = {split: final.samples for split, final in finals.items()}
    return Outcome(ending.reached_goal, finals[TEST].grades, samples)


def _ending_of(job: Job, model: StagedModel, stack: ExitStack) -> Ending:
    """Validate a model that is not the result of the last watched training."""
    run, evaluations, engine, spent = job.run, job.evaluations, job.models.engine(model), job.data.budget.spent
    nothing = Progress(0, 0, 0.0, float("nan"), 0.0, 0.0, 0.0, 0.0)
    validated = evaluations.validate(engine, spent.examples)
    metrics = reported(nothing, spent) | evaluations.metrics(validated)
    progress = replace(nothing, examples=spent.examples)  # not before the checkpoints of watched training
    checkpoints = stack.enter_context(Checkpoints(run, engine.model, model.address))
    reached = evaluations.is_reached(run.goal_accuracy, engine, validated)
    return Ending(model.address, metrics, reached, progress, checkpoints)
