"""Laws of the training loop: deterministic, counts what it saw, says when it fails."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any

import pytest
import torch

from showhow.errors import OutOfMemoryError, TrialError
from showhow.sections.recipe import Recipe, ScratchModel
from showhow.tasks.base import Task
from showhow.training.batches import Source, StepBatch, training_batches
from showhow.training.engine import PlainEngine, learning_rate_at
from showhow.training.loop import Progress, train
from showhow.training.model import build_model, is_seq2seq, parameter_count
from showhow.training.tokens import TokenFile

Files = Callable[..., TokenFile]
Recipes = Callable[..., Recipe]
Sizes = Callable[..., ScratchModel]


def run(file: TokenFile, recipe: Recipe, size: ScratchModel, seed: int = 0, every: int = 40) -> list[Progress]:
    model = build_model(size, file.special, seed)
    batches = training_batches(Source(file, recipe, seed, is_seq2seq(model)))
    return list(train(PlainEngine(model, recipe), recipe, batches, every))


class Losses:
    """An engine that takes no step and gives the losses it was told to."""

    def __init__(self, losses: list[float]) -> None:
        self.model, self.flops_per_token = torch.nn.Linear(2, 2), 36.0
        self._losses = iter(losses)

    def step(self, batch: StepBatch, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(next(self._losses)), torch.tensor(1.0)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_losses_bit_for_bit_and_another_seed_others(
    tokens: Files, recipe: Recipes, sizes: Sizes, architecture: str, precision: str
) -> None:
    of = recipe(precision=precision, max_examples=160)
    torch.rand(7)  # what happened before in this process does not matter
    one, again, other = (
        [(p.train_loss, p.gradient_norm) for p in run(tokens(), of, sizes(architecture), seed)] for seed in (0, 0, 1)
    )
    assert one == again
    assert not set(one) & set(other)
    assert all(math.isfinite(loss) for loss, _ in one)


def test_it_counts_the_examples_and_tokens_it_saw(tokens: Files, varied: Task, recipe: Recipes, sizes: Sizes) -> None:
    file, of = tokens(varied, examples=96), recipe(max_examples=192, batch_size=8, micro_batch_size=4)
    progress = run(file, of, sizes(), every=80)
    lengths = [batch.tokens for batch in islice(training_batches(Source(file, of, 0, False)), 24)]
    weights = parameter_count(build_model(sizes(), file.special, 0))
    assert [p.examples for p in progress] == [80, 160, 192]
    assert [p.tokens for p in progress] == [sum(lengths[:10]), sum(lengths[:20]), sum(lengths)]
    assert [p.flops for p in progress] == [6.0 * weights * p.tokens for p in progress]
    assert progress[-1].tokens == 2 * int((file.prompt_lengths + file.target_lengths).sum())  # two passes


@pytest.mark.parametrize(
    ("batch", "total", "every", "expected"),
    [
        (8, 40, 16, [16, 32, 40]),
        (8, 40, 20, [24, 40]),
        (8, 47, 16, [16, 32, 40]),  # what is left of a batch is not trained on
        (8, 40, 3, [8, 16, 24, 32, 40]),
        (8, 40, 1000, [40]),
        (8, 8, 8, [8]),
    ],
)
def test_it_reports_after_the_examples_asked_for_and_once_at_the_end(
    tokens: Files, recipe: Recipes, sizes: Sizes, batch: int, total: int, every: int, expected: list[int]
) -> None:
    progress = run(tokens(), recipe(batch_size=batch, max_examples=total), sizes(), every=every)
    assert [p.examples for p in progress] == expected


def test_means_are_taken_since_the_last_report_and_the_rate_is_the_last_steps(tokens: Files, recipe: Recipes) -> None:
    of = recipe(batch_size=10, max_examples=60, schedule="linear")
    told = [3.0, 2.0, 1.0, 0.5, 0.25, 0.75]
    progress = list(train(Losses(told), of, training_batches(Source(tokens(), of, 0, False)), 30))
    assert [p.train_loss for p in progress] == [2.0, 0.5]
    assert [p.learning_rate for p in progress] == [learning_rate_at(of, 20), learning_rate_at(of, 50)]
    assert all(value >= 0 for p in progress for value in asdict(p).values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("step", [1, 20, 21, 50, 100])
def test_a_loss_that_is_no_number_ends_the_run_saying_when(
    tokens: Files, recipe: Recipes, bad: float, step: int
) -> None:
    of = recipe(batch_size=10, max_examples=1000)
    told = [1.0] * (step - 1) + [bad] * 101
    with pytest.raises(TrialError, match=rf"became {bad} at step {step} \({step * 10:,} examples\)"):
        list(train(Losses(told), of, training_batches(Source(tokens(), of, 0, False)), 250))


def test_a_loss_far_above_where_it_began_ends_the_run_saying_when(tokens: Files, recipe: Recipes) -> None:
    of = recipe(batch_size=10, max_examples=1000)
    told = [2.0] * 40 + [9.0] * 60
    with pytest.raises(TrialError, match=r"diverged: from 2 to 9 by step 60 \(600 examples\)"):
        list(train(Losses(told), of, training_batches(Source(tokens(), of, 0, False)), 1000))


def test_a_lucky_first_batch_makes_no_later_one_a_divergence(tokens: Files, recipe: Recipes) -> None:
    of = recipe(batch_size=10, max_examples=1000)
    assert list(train(Losses([0.1] + [2.3] * 99), of, training_batches(Source(tokens(), of, 0, False)), 1000))


def test_a_real_run_with_a_senseless_learning_rate_ends_as_a_trial_error(
    tokens: Files, recipe: Recipes, sizes: Sizes
) -> None:
    of = recipe(learning_rate=1.0, max_examples=800, gradient_clip=1e6)
    with pytest.raises(TrialError, match=r"diverged|became"):
        run(tokens(), of, sizes(), every=800)


def test_the_time_between_reports_is_not_counted(tokens: Files, recipe: Recipes, sizes: Sizes) -> None:
    of = recipe(max_examples=16)
    model: Any = build_model(sizes(), tokens().special, 0)
    seconds = []
    for progress in train(PlainEngine(model, of), of, training_batches(Source(tokens(), of, 0, False)), 8):
        seconds.append(progress.train_seconds)
        time.sleep(0.5)
    assert seconds[1] - seconds[0] < 0.5


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 2.00 GiB"),
    ],
)
def test_too_little_memory_ends_the_run_as_such_saying_what_to_do(
    tokens: Files, recipe: Recipes, error: Exception
) -> None:
    class Full(Losses):
        def step(self, batch: StepBatch, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
            raise error

    of = recipe(batch_size=8)
    with pytest.raises(
        OutOfMemoryError, match=r"out of memory at step 1, .* 8 x \d+ tokens; .*micro_batch_size.*2.00 GiB\)"
    ):
        list(train(Full([]), of, training_batches(Source(tokens(), of, 0, False)), 100))


def test_what_dropout_leaves_out_is_a_function_of_seed_and_step_so_a_resumed_run_goes_on_as_it_would_have(
    tokens: Files, recipe: Recipes, sizes: Sizes
) -> None:
    file, of = tokens(), recipe(max_examples=64)

    def made() -> PlainEngine:
        model: Any = build_model(sizes("t5"), file.special, 0)
        model.config.dropout_rate = 0.1  # as in every published T5
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        return PlainEngine(model, of)

    def trained(engine: PlainEngine, seed: int, since: Progress | None = None) -> list[Progress]:
        step = since.examples // of.batch_size if since else 0
        batches = training_batches(Source(file, of, 0, True), first_step=step)
        return list(train(engine, of, batches, 8, since, seed))

    whole, other = trained(made(), 0), trained(made(), 1)
    engine = made()
    halfway = next(
        p for p in train(engine, of, training_batches(Source(file, of, 0, True)), 8, None, 0) if p.examples == 32
    )
    state = {name: tensor.clone() for name, tensor in engine.state()}
    torch.rand(7)  # what happened before in this process does not matter
    resumed = made()
    resumed.load_state(state.__getitem__, 4)
    rest = trained(resumed, 0, halfway)
    assert [p.train_loss for p in rest] == pytest.approx([p.train_loss for p in whole[4:]], rel=1e-6)
    assert not {p.train_loss for p in whole} & {p.train_loss for p in other}
