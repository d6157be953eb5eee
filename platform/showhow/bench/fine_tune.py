"""Supervised fine-tuning on explained examples: train, evaluate every so often, grade all splits at the end.

One run, in one process or in several that train together. It knows neither Ray nor MLflow: it is handed tokenised
shards and functions that take what it says.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import torch

from showhow.bench.evaluations import Evaluations
from showhow.fingerprint import Json
from showhow.machines.assignment import Assignment, Note
from showhow.machines.layout import Layout
from showhow.metrics import TEST
from showhow.sections.dataset_spec import TRAIN
from showhow.sections.recipe import Recipe
from showhow.training.batches import training_batches
from showhow.training.checkpoint import Checkpoints
from showhow.training.engine import Engine, PlainEngine
from showhow.training.loop import train
from showhow.training.memory import memory_needed_for
from showhow.training.model import build_model, is_seq2seq
from showhow.training.tokens import SpecialTokens

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: whether by reaching its goal, the grade of each test question in the dataset's order, and sample
    replies by split."""

    reached_goal: bool
    grades: tuple[bool, ...]
    samples: dict[str, list[dict[str, Json]]]


def unheard(_kind: str, _examples: int, _text: str) -> None:
    """Take a note and do nothing with it."""


def fine_tune(run: Assignment, report: Report, note: Note = unheard) -> Outcome:
    """Train and evaluate one run, from its latest checkpoint on where it has one, reporting metrics (names as in
    metrics.py) after each evaluation and at the end. The processes that train together all call it, and all report the
    same.

    Raises TrialError when training cannot go on, OutOfMemoryError when the run finds no room as it is laid out, and
    OSError when a checkpoint cannot be written."""
    recipe = run.trial.recipe
    evaluations = Evaluations(run, note)
    train_file = evaluations.files[TRAIN]
    with memory_needed_for("building the model"):
        model = _model(run, train_file.special)
    with Checkpoints(run, model) as checkpoints:
        with memory_needed_for("laying out the model and its optimizer"):
            engine = _engine(model, recipe, run.layout)
            before = checkpoints.go_on(engine)
        first_step, since = 0, None
        if before is not None:
            since = before.progress
            first_step = since.examples // recipe.batch_size
            evaluations.go_on(before)
            note("resumed", since.examples, f"goes on from the checkpoint after {since.examples:,} examples")
            report(before.reported)  # who was to hear it may have been gone by then
        micro = run.layout.micro_batch_size
        batches = training_batches(train_file, recipe, run.seed, is_seq2seq(model), micro, first_step)
        for progress in train(engine, recipe, batches, run.trial.evaluate_every, since, run.seed):
            validated = evaluations.validate(engine, progress.examples)
            reached = evaluations.is_reached(run.goal_accuracy, engine, validated)
            metrics = {name: float(value) for name, value in asdict(progress).items()} | evaluations.metrics(validated)
            if reached or progress.examples + recipe.batch_size > recipe.max_examples:
                break
            report(metrics)
            checkpoints.save_if_due(engine, evaluations.standing(progress, metrics))
        finals = evaluations.grade(engine)
        checkpoints.save_weights(engine, evaluations.standing(progress, metrics))
        report(metrics | evaluations.metrics(finals))
    samples = {split: final.samples for split, final in finals.items()}
    return Outcome(reached, finals[TEST].grades, samples)


def _model(run: Assignment, special: SpecialTokens) -> torch.nn.Module:
    trial, layout = run.trial, run.layout
    with _sharded_while_built(run):
        return build_model(trial.model, special, run.seed, trial.adapter, trial.recipe, layout.recompute_activations)


# DeepSpeed takes long to load, and small runs never need it.


def _sharded_while_built(run: Assignment) -> AbstractContextManager[None]:
    if run.layout.needs_deepspeed:
        from showhow.training.deepspeed_engine import sharded_while_built

        return sharded_while_built(run.trial.model, run.trial.recipe, run.layout)
    return nullcontext()


def _engine(model: torch.nn.Module, recipe: Recipe, layout: Layout) -> Engine:
    if layout.needs_deepspeed:
        from showhow.training.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(model, recipe, layout)
    return PlainEngine(model, recipe)
