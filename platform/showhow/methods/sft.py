"""Supervised fine-tuning on explained examples: train, evaluate every so often, grade all splits at the end.

One run, in one process. It knows neither Ray nor MLflow: it is handed tokenised shards and a `report` function.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from tokenizers import Tokenizer

from showhow.errors import TrialError
from showhow.fingerprint import Json
from showhow.metrics import TEST, VALIDATION, on_split
from showhow.study.assignment import Assignment
from showhow.study.dataset_spec import TRAIN
from showhow.study.layout import Layout
from showhow.study.recipe import Recipe
from showhow.training.batches import training_batches
from showhow.training.engine import Engine, PlainEngine
from showhow.training.evaluate import Evaluation, evaluate
from showhow.training.loop import Progress, train
from showhow.training.model import build_model, is_seq2seq
from showhow.training.tokens import TokenFile

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: whether by reaching its goal, the grade of each test question in the dataset's order, and sample
    replies by split."""

    reached_goal: bool
    grades: tuple[bool, ...]
    samples: dict[str, list[dict[str, Json]]]


def fine_tune(run: Assignment, report: Report) -> Outcome:
    """Train and evaluate one run, reporting metrics (names as in metrics.py) after each evaluation and at the end. The
    processes that train together all call it, and all report the same.

    Raises TrialError when training cannot go on."""
    trial, goal = run.trial, run.goal_accuracy
    files = _Run(run)
    model = build_model(trial.model, files.files[TRAIN].special, run.seed)
    engine = _engine(model, trial.recipe, run.layout)
    batches = training_batches(
        files.files[TRAIN], trial.recipe, run.seed, is_seq2seq(model), run.layout.micro_batch_size
    )
    solved_at, reached = None, False
    for progress in train(engine, trial.recipe, batches, trial.evaluate_every):
        validation = files.evaluate(engine, VALIDATION, trial.validation_examples)
        accuracy = validation.metrics["accuracy"]
        if solved_at is None and accuracy >= trial.evaluation.solved_accuracy:
            solved_at = progress.examples
        reached = goal is not None and accuracy >= goal and files.is_confirmed(engine, goal)
        metrics = _metrics(progress, {VALIDATION: validation}, files.eval_seconds, solved_at)
        if reached or progress.examples + trial.recipe.batch_size > trial.recipe.max_examples:
            break
        report(metrics)
    finals = {split: files.evaluate(engine, split, trial.data.eval_examples) for split in files.final_splits}
    report(metrics | _metrics(progress, finals, files.eval_seconds, solved_at))
    samples = {split: final.samples for split, final in finals.items()}
    return Outcome(reached, finals[TEST].grades, samples)


def _engine(model: torch.nn.Module, recipe: Recipe, layout: Layout) -> Engine:
    if layout.needs_deepspeed:
        from showhow.training.deepspeed_engine import DeepSpeedEngine  # loads DeepSpeed, which small runs never need

        return DeepSpeedEngine(model, recipe, layout)
    return PlainEngine(model, recipe)


class _Run:
    """The open files of a run, and the time its evaluations took."""

    def __init__(self, run: Assignment) -> None:
        self._trial = run.trial
        self.files = {split: TokenFile(path) for split, path in run.shards.items()}
        self.final_splits = [split for split in run.trial.splits if split not in (TRAIN, VALIDATION)]
        self._tokenizer = Tokenizer.from_file(str(run.tokenizer))
        self.eval_seconds = 0.0

    def is_confirmed(self, engine: Engine, goal_accuracy: float) -> bool:
        """True when the whole validation split says what its first part said, so that no lucky part ends a run."""
        whole = self._trial.data.eval_examples
        if whole == self._trial.validation_examples:
            return True
        return self.evaluate(engine, VALIDATION, whole).metrics["accuracy"] >= goal_accuracy

    def evaluate(self, engine: Engine, split: str, examples: int) -> Evaluation:
        started = time.perf_counter()
        try:
            with engine.autocast():
                found = evaluate(
                    engine.model,
                    self._tokenizer,
                    self.files[split],
                    self._trial.level,
                    examples,
                    self._trial.evaluation.batch_size,
                )
        except torch.OutOfMemoryError as error:
            raise TrialError(
                f"out of memory while writing replies, {self._trial.evaluation.batch_size} at a time; "
                f"a smaller evaluation.batch_size gives the same ({str(error).splitlines()[0]})"
            ) from error
        self.eval_seconds += time.perf_counter() - started
        return found


def _metrics(
    progress: Progress, evaluations: dict[str, Evaluation], eval_seconds: float, solved_at: int | None
) -> dict[str, float]:
    metrics = {name: float(value) for name, value in asdict(progress).items()} | {"eval_seconds": eval_seconds}
    if solved_at is not None:
        metrics["examples_until_solved"] = float(solved_at)
    for split, evaluation in evaluations.items():
        metrics |= {on_split(split, name): value for name, value in evaluation.metrics.items()}
    return metrics
