"""A run's evaluations: their questions, batch size, time and metrics."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer

from showhow.machines.assignment import Assignment, Note
from showhow.metrics import METRICS, TEST, VALIDATION, on_split
from showhow.training.checkpoints.files import Standing
from showhow.training.engine import Engine, this_device
from showhow.training.evaluate import EXTRA_TOKENS, Evaluation, Grading, evaluate
from showhow.training.loop import Progress
from showhow.training.precision import computing_type
from showhow.training.replies.vllm_replies import VllmReplies
from showhow.training.tokens import TokenFile


class Evaluations:
    """Evaluates a model on the questions of a run's splits."""

    def __init__(self, run: Assignment, note: Note) -> None:
        """Open the run's files. Raises TrialError when they cannot be read."""
        self._trial, self._note = run.trial, note
        self.files = {split: TokenFile(path) for split, path in run.shards.items()}
        own = tuple(METRICS.find(name)() for name in run.trial.evaluation.metrics)
        level = run.trial.method.reads_as(run.trial.level)
        self._grading = Grading(Tokenizer.from_file(str(run.tokenizer)), level, own)
        self._at_once = run.layout.asked_at_once or run.trial.evaluation.batch_size
        self._examples, self._seconds = 0, 0.0
        self._solved_at: int | None = None
        self._vllm = self._new_vllm() if run.trial.evaluation.written_by == "vllm" else None

    def _new_vllm(self) -> VllmReplies:
        """Return a vLLM for the questions of all splits."""
        files = [self.files[split] for split in (VALIDATION, TEST, *self._trial.data.eval_splits)]
        longest = max(int(file.prompt_lengths.max()) + int(file.target_lengths.max()) for file in files) + EXTRA_TOKENS
        self._folder = TemporaryDirectory()  # for the weights that vLLM reads
        dtype = computing_type(self._trial.recipe.precision, this_device())
        return VllmReplies(Path(self._folder.name), longest, self._at_once, dtype)

    def resume(self, standing: Standing) -> None:
        """Continue from the state of a checkpoint."""
        self._examples, self._seconds = standing.progress.examples, standing.eval_seconds
        self._solved_at = standing.solved_at

    def standing(self, progress: Progress, reported: dict[str, float]) -> Standing:
        """Return the state of the run, with its last report."""
        return Standing(progress=progress, reported=reported, solved_at=self._solved_at, eval_seconds=self._seconds)

    def validate(self, engine: Engine, examples: int) -> dict[str, Evaluation]:
        """Evaluate on the validation split. examples: the training examples so far."""
        self._examples = examples
        found = self._evaluate(VALIDATION, engine, self._trial.validation_examples)
        if self._solved_at is None and found.metrics["accuracy"] >= self._trial.evaluation.solved_accuracy:
            self._solved_at = examples
        return {VALIDATION: found}

    def is_reached(self, goal_accuracy: float | None, engine: Engine, validated: dict[str, Evaluation]) -> bool:
        """True when the complete validation split confirms the result of its first part, which may be luck."""
        if goal_accuracy is None or validated[VALIDATION].metrics["accuracy"] < goal_accuracy:
            return False
        complete = self._trial.data.eval_examples
        if complete == self._trial.validation_examples:
            return True
        return self._evaluate(VALIDATION, engine, complete).metrics["accuracy"] >= goal_accuracy

    def grade(self, engine: Engine) -> dict[str, Evaluation]:
        """Evaluate on all questions of the test split and of the additional ones."""
        splits = (TEST, *self._trial.data.eval_splits)
        return {split: self._evaluate(split, engine, self._trial.data.eval_examples) for split in splits}

    def metrics(self, evaluations: dict[str, Evaluation]) -> dict[str, float]:
        """Return the metrics of some evaluations, and of all evaluations so far."""
        metrics = {"eval_seconds": self._seconds}
        if self._solved_at is not None:
            metrics["examples_until_solved"] = float(self._solved_at)
        for split, evaluation in evaluations.items():
            metrics |= {on_split(split, name): value for name, value in evaluation.metrics.items()}
        return metrics

    def _evaluate(self, split: str, engine: Engine, examples: int) -> Evaluation:
        """Evaluate on the first questions of a split, with the largest batch that has fitted in memory so far. Raises
        OutOfMemoryError (see evaluate)."""
        started, file = time.perf_counter(), self.files[split]
        model: torch.nn.Module | VllmReplies = engine.model
        if self._vllm is not None:
            self._vllm.take(engine.model)
            model = self._vllm
        with engine.autocast():
            found = evaluate(model, self._grading, file, examples, self._at_once)
        if found.asked_at_once < self._at_once:
            self._at_once = found.asked_at_once
            self._note("adapted", self._examples, f"{found.shortage}; continues with {self._at_once}")
        self._seconds += time.perf_counter() - started
        return found
