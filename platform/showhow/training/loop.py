"""The one training loop. It does not depend on Ray, tracking or evaluation: it trains and yields its progress."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from showhow.errors import TrialError
from showhow.sections.recipe import Recipe
from showhow.seeds import seed_for
from showhow.training.batches import StepBatch
from showhow.training.engine import Engine, learning_rate_at
from showhow.training.memory import memory_needed_for
from showhow.training.ranks import rank, summed

# The loss is read from the device only this often, so that a GPU does not wait at each step.
_CHECK_EVERY_STEPS = 20
# A mean loss (nats per target token) that never counts as divergence, however low the loss of the first batch was;
# guessing one of fifty tokens costs 3.9.
_NEVER_DIVERGED = 4.0


@dataclass(frozen=True)
class Progress:
    """The progress of training. Losses (nats per target token) and norms are means since the last report; `tokens`
    counts questions and targets without padding; `flops`: see flops_per_token."""

    examples: int
    tokens: int
    flops: float
    train_loss: float
    gradient_norm: float
    learning_rate: float
    train_seconds: float
    examples_per_second: float


def train(
    engine: Engine,
    recipe: Recipe,
    batches: Iterator[StepBatch],
    report_every_examples: int,
    since: Progress | None = None,
    seed: int = 0,
) -> Iterator[Progress]:
    """Train until the recipe's max_examples, yielding after each `report_every_examples` and at the end.

    since: the progress of an earlier process whose state the engine has loaded; `batches` start after it. The time
    during a yield, in which the caller may evaluate, is not counted. Dropout is a function of the seed, the step and
    the rank. Raises TrialError when the loss is not a number or has diverged, and OutOfMemoryError."""
    steps = recipe.total_examples // recipe.batch_size
    reported, tokens, seconds = (since.examples, since.tokens, since.train_seconds) if since else (0, 0, 0.0)
    guard = _LossGuard(recipe.batch_size)
    losses: list[torch.Tensor] = []
    norms: list[torch.Tensor] = []
    started = time.perf_counter()
    engine.model.train()
    for step in range(reported // recipe.batch_size, steps):
        rate = learning_rate_at(recipe, step * recipe.batch_size)
        batch = next(batches)
        tokens += batch.tokens
        torch.manual_seed(seed_for("dropout", seed, step, rank()))
        loss, norm = _step(engine, batch, rate, step)
        losses.append(loss)
        norms.append(norm)
        examples = (step + 1) * recipe.batch_size
        due = examples // report_every_examples > reported // report_every_examples or step + 1 == steps
        if due or len(losses) % _CHECK_EVERY_STEPS == 0:
            guard.check(losses, step + 1)
        if due:
            elapsed = time.perf_counter() - started
            seconds += elapsed
            mean_loss, mean_norm = float(summed(torch.stack(losses).mean())), float(torch.stack(norms).mean())
            speed = (examples - reported) / elapsed
            yield Progress(
                examples, tokens, engine.flops_per_token * tokens, mean_loss, mean_norm, rate, seconds, speed
            )
            losses, norms, reported, started = [], [], examples, time.perf_counter()
            engine.model.train()


def _step(engine: Engine, batch: StepBatch, rate: float, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = " x ".join(map(str, batch.micro_batches[0]["input_ids"].shape))
    with memory_needed_for(
        f"at step {step + 1}, on a micro-batch of {shape} tokens; a smaller micro_batch_size trains the same with less"
    ):
        return engine.step(batch, rate)


class _LossGuard:
    """Ends a run whose loss is not a number, or is far above its first value."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._first: float | None = None

    def check(self, losses: list[torch.Tensor], steps_done: int) -> None:
        values = summed(torch.stack(losses[-_CHECK_EVERY_STEPS:])).tolist()
        for index, value in enumerate(values):
            if not math.isfinite(value):
                step = steps_done - len(values) + index + 1
                raise TrialError(
                    f"the training loss became {value} at step {step} ({step * self._batch_size:,} examples); "
                    "a lower learning rate or a longer warm-up usually helps"
                )
        mean = sum(values) / len(values)
        if self._first is None:
            self._first = values[0]
        if mean > max(2 * self._first + 1, _NEVER_DIVERGED):
            raise TrialError(
                f"the training loss diverged: from {self._first:.3g} to {mean:.3g} by step {steps_done} "
                f"({steps_done * self._batch_size:,} examples); a lower learning rate usually helps"
            )
