"""The stage `train`: watched (it reports and may be stopped), or unwatched, as a stage that several runs may share."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from showhow.bench.job import Job
from showhow.bench.models import StagedModel
from showhow.bench.stages import StageRecord
from showhow.datasets.dataset import Dataset
from showhow.errors import TrialError
from showhow.methods.bench import Budgeted, Spent
from showhow.methods.losses import Loss
from showhow.sections.recipe import Recipe
from showhow.training.batches import Source, training_batches
from showhow.training.checkpoints.files import Standing
from showhow.training.checkpoints.saving import Checkpoints
from showhow.training.engine import Engine
from showhow.training.loop import Progress, train
from showhow.training.model import is_seq2seq
from showhow.training.ranks import rank
from showhow.training.weights import weights_of

_STATE = "state"  # the subfolder from which an interrupted stage resumes
_VERSION = 1  # increase it when the same training would give another model


@dataclass(frozen=True)
class Lesson:
    """What a model is trained on. examples: the most it sees, below 1 as a share of the total budget (None: what the
    budget leaves)."""

    data: Dataset
    loss: Loss
    examples: float | None


@dataclass(frozen=True)
class Ending:
    """The end of a watched training: its last metrics, not yet reported, and whether it reached the goal."""

    address: str
    metrics: dict[str, float]
    reached_goal: bool
    progress: Progress
    checkpoints: Checkpoints


@dataclass(frozen=True)
class _Course:
    """A training that is ready to start, or to resume from `since`."""

    engine: Engine
    source: Source
    recipe: Recipe
    checkpoints: Checkpoints
    since: Standing | None

    @property
    def examples(self) -> int:
        """The total number of training examples."""
        return self.recipe.max_examples or 0

    def steps(self, job: Job, every: int) -> Iterator[Progress]:
        """Train, and yield the progress after every `every` examples."""
        since = None if self.since is None else self.since.progress
        first = 0 if since is None else since.examples // self.recipe.batch_size
        batches = training_batches(self.source, job.run.layout.micro_batch_size, first)
        return train(self.engine, self.recipe, batches, every, since, job.run.seed)


def train_watched(job: Job, model: StagedModel, lesson: Lesson, stack: ExitStack) -> tuple[StagedModel, Ending]:
    """Train a run, with reports, stopping, checkpoints and resuming, until its goal or the end of its budget. The
    caller, who grades the model, makes the last report."""
    run, evaluations, offset = job.run, job.evaluations, job.data.budget.spent
    settings = _settings(job, lesson) | {"spent": asdict(offset)}
    address = job.stages.address("train", _VERSION, settings, _inputs(model, lesson))
    course = _begin(job, model, lesson, stack, address)
    if course.since is not None:
        _resume(job, course.since, offset)
    ending = None
    every = run.trial.evaluation.every_examples or max(course.recipe.batch_size, course.examples // 20)
    for progress in course.steps(job, every):
        validated = evaluations.validate(course.engine, offset.examples + progress.examples)
        reached = evaluations.is_reached(run.goal_accuracy, course.engine, validated)
        metrics = reported(progress, offset) | evaluations.metrics(validated)
        ending = Ending(address, metrics, reached, progress, course.checkpoints)
        if reached or progress.examples + course.recipe.batch_size > course.examples:
            break
        job.listeners.report(metrics)
        course.checkpoints.save_if_due(course.engine, evaluations.standing(progress, metrics))
    if ending is None:
        raise TrialError("the checkpoint is of the end of a training that was not reported; run the study again")
    spent = Spent(ending.progress.examples, ending.progress.tokens, ending.progress.flops)
    job.charge("training", spent)
    job.listeners.stage("train", address, False, spent, ending.progress.train_seconds)
    trained, standing = StagedModel(address, job.stages.model(address, 0)), Standing(progress=ending.progress)
    job.models.set_current(address, course.engine, lambda: _save(job, course.engine, trained, standing))
    return trained, ending


def _resume(job: Job, before: Standing, offset: Spent) -> None:
    job.evaluations.resume(before)
    seen = offset.examples + before.progress.examples
    job.listeners.note("resumed", seen, f"resumes from the checkpoint after {seen:,} examples")
    job.listeners.report(before.reported)  # it may not have arrived before


def _begin(
    job: Job, model: StagedModel, lesson: Lesson, stack: ExitStack, address: str, folder: Path | None = None
) -> _Course:
    """Build a model, put it on its devices, and load its latest checkpoint, in the run's folder or another."""
    module = job.models.build()
    checkpoints = stack.enter_context(Checkpoints(job.run, module, address, folder))
    engine = job.models.lay_out(module, model)
    engine.loss = lesson.loss
    since = checkpoints.resume(engine)
    source = _source(job, engine, lesson)
    return _Course(engine, source, _until(job, source, engine, lesson.examples), checkpoints, since)


def train_stage(job: Job, model: StagedModel, lesson: Lesson, keep: int) -> tuple[StagedModel, ...]:
    """Train as a stage that runs share: made once, by one of them, and resumed if it was interrupted. Every run that
    uses it is charged."""
    settings = _settings(job, lesson) | {"keep": keep, "examples": lesson.examples}
    if not _is_within(job.data.budget, lesson.examples):
        settings["spent"] = asdict(job.data.budget.spent)  # it ends by the budget
    inputs = _inputs(model, lesson)
    address = job.stages.address("train", _VERSION, settings, inputs)
    with job.stages.claimed(address) as is_ours:
        if is_ours:
            record = StageRecord(operation="train", settings=settings, inputs=inputs, models=keep)
            job.stages.finish(address, _train_unwatched(job, model, lesson, address, record))
            if rank() == 0:
                shutil.rmtree(job.stages.path(address) / _STATE, ignore_errors=True)  # no longer needed to resume
    found = job.stages.finished(address)
    if found is None:
        raise TrialError(f"{job.stages.path(address)} was removed while it was needed; run the study again")
    job.charge("training", found.spent)
    job.listeners.stage("train", address, not is_ours, found.spent, found.seconds)
    return tuple(
        StagedModel(f"{address}/{number}", job.stages.model(address, number)) for number in range(found.models)
    )


def _train_unwatched(job: Job, model: StagedModel, lesson: Lesson, address: str, record: StageRecord) -> StageRecord:
    """Train, and save the model at evenly spaced points, as many as the record has models."""
    with ExitStack() as stack:
        course = _begin(job, model, lesson, stack, address, job.stages.path(address) / _STATE)
        steps, batch = course.examples // course.recipe.batch_size, course.recipe.batch_size
        if steps < record.models:
            raise TrialError(
                f"keep = {record.models} models of a training of {steps} batches; keep fewer, or train longer"
            )
        for progress in course.steps(job, max(1, steps // record.models) * batch):
            standing = Standing(progress=progress)
            # The nearest point; of several models for one point the last remains.
            number = max(1, round(progress.examples * record.models / (steps * batch))) - 1
            _save(job, course.engine, StagedModel(address, job.stages.model(address, number)), standing)
            course.checkpoints.save_if_due(course.engine, standing)
    job.models.release()
    spent = {"examples": progress.examples, "tokens": progress.tokens, "flops": progress.flops}
    return record.model_copy(update={**spent, "seconds": progress.train_seconds})


def _is_within(budget: Budgeted, wanted: float | None) -> bool:
    """True where a training ends by its wanted examples, whatever was spent before."""
    if wanted is None or (wanted >= 1 and budget.unit != "examples"):
        return False
    return (wanted * budget.amount if wanted < 1 else wanted) <= budget.left


def reported(progress: Progress, offset: Spent) -> dict[str, float]:
    """Return a progress as metrics, added to what the run had spent before."""
    metrics = {name: float(value) for name, value in asdict(progress).items()}
    return metrics | {name: metrics[name] + float(value) for name, value in asdict(offset).items() if value}


def _settings(job: Job, lesson: Lesson) -> dict[str, Any]:
    trial = job.run.trial
    return {
        "recipe": trial.recipe.model_dump(mode="json", exclude={"micro_batch_size", "max_examples"}),
        "loss": lesson.loss.model_dump(mode="json"),
        "budget": trial.budget.model_dump(mode="json"),
        "tokens": [job.words.fingerprint, trial.data.max_tokens],
        "seed": job.run.seed,
    }


def _inputs(model: StagedModel, lesson: Lesson) -> tuple[str, str]:
    return model.address, lesson.data.address


def _source(job: Job, engine: Engine, lesson: Lesson) -> Source:
    file, trial = job.file(lesson.data), job.run.trial
    weights = weights_of(file, lesson.loss, job.words.tokenizer, trial.level)
    return Source(file, trial.recipe, job.run.seed, is_seq2seq(engine.model), lesson.loss, weights)


def _until(job: Job, source: Source, engine: Engine, wanted: float | None) -> Recipe:
    """Return the recipe with the examples that the budget leaves, at most those that are wanted: the largest number of
    full batches, in their order, within both. Raises TrialError where that is none."""
    recipe, budget = source.recipe, job.data.budget
    allowed, most = budget.room(wanted)
    examples = int(min(allowed, most)) if budget.unit == "examples" else 0
    if budget.unit != "examples":
        tokens = allowed if budget.unit == "tokens" else allowed / engine.flops_per_token
        examples = recipe.batch_size * _batches_within(source, tokens, most / recipe.batch_size)
    if examples < recipe.batch_size:
        raise TrialError(
            f"the budget of {budget.amount:,.6g} {budget.unit} leaves {max(allowed, 0):,.6g}, which is less than "
            f"one batch of {recipe.batch_size:,} examples; raise budget.amount, or spend less of it in earlier stages"
        )
    return recipe.model_copy(update={"max_examples": examples})


def _batches_within(source: Source, tokens: float, most: float) -> int:
    """Return how many batches, in their order, have at most `tokens` tokens together; at most `most`."""
    lengths = source.lengths
    for batches, rows in enumerate(source.order()):
        tokens -= int(lengths[rows].sum())
        if tokens < 0 or batches + 1 > most:
            return batches
    raise AssertionError("the order of rows has no end")


def _save(job: Job, engine: Engine, model: StagedModel, standing: Standing) -> None:
    """Write the weights of a trained model."""
    run = job.run.model_copy(update={"keep_weights": True})
    with Checkpoints(run, engine.model, model.address, model.weights) as checkpoints:
        checkpoints.save_weights(engine, standing)
