"""Laws of the engine: micro-batches make no difference, schedules hit their marks, norms do not decay."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from showhow.sections.recipe import Recipe, ScratchModel
from showhow.tasks.base import Task
from showhow.training.batches import IGNORED, Batch, StepBatch, causal_batch, seq2seq_batch
from showhow.training.engine import END_TO_END, PlainEngine, learning_rate_at
from showhow.training.losses import response_loss
from showhow.training.model import build_model
from showhow.training.tokens import TokenFile

Files = Callable[..., TokenFile]
Recipes = Callable[..., Recipe]
Sizes = Callable[..., ScratchModel]
COLLATE = {"llama": causal_batch, "t5": seq2seq_batch}


def whole(micro_batches: list[Batch]) -> StepBatch:
    """Micro-batches that make a batch."""
    return StepBatch(micro_batches, 0, sum(int((batch["labels"] != IGNORED).sum()) for batch in micro_batches))


both = pytest.mark.parametrize("architecture", ["llama", "t5"])


@both
def test_accumulated_micro_batches_step_as_the_whole_batch_does(
    tokens: Files, varied: Task, recipe: Recipes, sizes: Sizes, architecture: str
) -> None:
    file, rows, collate = tokens(varied), np.arange(12), COLLATE[architecture]
    steps = []
    for parts in ([rows], [rows[:3], rows[3:4], rows[4:]]):
        engine = PlainEngine(build_model(sizes(architecture), file.special, 0), recipe())
        for _ in range(3):
            loss, norm = engine.step(whole([collate(file, part) for part in parts]), 1e-3)
        steps.append((float(loss), float(norm), [p.detach().cpu().clone() for p in engine.model.parameters()]))
    (loss, norm, weights), (loss_2, norm_2, weights_2) = steps
    assert loss == pytest.approx(loss_2, abs=1e-5)
    assert norm == pytest.approx(norm_2, rel=1e-4)
    # Adam divides by the gradient's size, so what rounding leaves of a zero gradient may show as a full step.
    apart = torch.cat([(a - b).abs().flatten() for a, b in zip(weights, weights_2, strict=True)])
    assert float(apart.quantile(0.999)) < 1e-6


@both
def test_the_gradient_of_micro_batches_is_that_of_the_whole_batch(
    tokens: Files, varied: Task, sizes: Sizes, architecture: str
) -> None:
    file, rows, collate = tokens(varied), np.arange(12), COLLATE[architecture]
    model = build_model(sizes(architecture), file.special, 0)
    gradients = []
    for parts in ([rows], [rows[:3], rows[3:4], rows[4:]]):
        model.zero_grad()
        for part in parts:
            (response_loss(model, collate(file, part)) / 100).backward()  # type: ignore[no-untyped-call]
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, atol=1e-6)


@both
def test_the_loss_is_the_mean_over_target_tokens_and_a_model_like_chance_has_that_of_chance(
    tokens: Files, easy: Task, recipe: Recipes, sizes: Sizes, architecture: str
) -> None:
    file = tokens(easy)
    model = build_model(sizes(architecture), file.special, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    loss, _ = PlainEngine(model, recipe()).step(whole([COLLATE[architecture](file, np.arange(8))]), 1e-9)
    assert float(loss) == pytest.approx(math.log(file.special.vocabulary), rel=1e-6)


def test_the_seq2seq_loss_is_of_each_token_given_those_before_it(tokens: Files, varied: Task, sizes: Sizes) -> None:
    file = tokens(varied)
    model: Any = build_model(sizes("t5"), file.special, 0).eval()
    total = 0.0
    for row in range(3):
        target = torch.from_numpy(file.target(row).astype(np.int64))[None]
        given_before = torch.cat([torch.tensor([[file.special.pad]]), target[:, :-1]], dim=1)
        prompt = torch.from_numpy(file.prompt(row).astype(np.int64))[None]
        logits = model(input_ids=prompt, decoder_input_ids=given_before).logits
        total += float(cross_entropy(logits[0].detach(), target[0], reduction="sum"))
    with torch.no_grad():
        assert float(response_loss(model, seq2seq_batch(file, np.arange(3)))) == pytest.approx(total, rel=1e-5)


def test_gradients_are_clipped_and_the_norm_is_told_from_before(tokens: Files, recipe: Recipes, sizes: Sizes) -> None:
    file = tokens()
    batch = [causal_batch(file, np.arange(8))]
    model = build_model(sizes(), file.special, 0)
    response = response_loss(model, batch[0])
    (response / int((batch[0]["labels"] >= 0).sum())).backward()  # type: ignore[no-untyped-call]
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    engine = PlainEngine(build_model(sizes(), file.special, 0), recipe(gradient_clip=0.01))
    _, norm = engine.step(whole(batch), 0.0)
    assert float(norm) == pytest.approx(float(expected.norm()), rel=1e-4)
    first_moments = [state["exp_avg"] for state in engine._optimizer.state.values()]
    clipped = torch.cat([moment.flatten() for moment in first_moments]) / (1 - 0.9)
    assert float(clipped.norm()) == pytest.approx(0.01, rel=1e-3)


def test_weight_decay_is_taken_from_matrices_and_not_from_norms(tokens: Files, recipe: Recipes, sizes: Sizes) -> None:
    file = tokens()
    ended = []
    for decay in (0.0, 0.5):
        engine = PlainEngine(build_model(sizes(), file.special, 0), recipe(weight_decay=decay))
        before = deepcopy(dict(engine.model.named_parameters()))
        engine.step(whole([causal_batch(file, np.arange(8))]), 1e-3)
        ended.append(dict(engine.model.named_parameters()))
    for name, weights in before.items():
        expected = weights.cpu() * 1e-3 * 0.5 if weights.ndim >= 2 else torch.zeros_like(weights)
        assert torch.allclose((ended[0][name] - ended[1][name]).cpu(), expected, atol=1e-6), name


@pytest.mark.parametrize(
    ("schedule", "half", "last"),
    [("constant", 1.0, 1.0), ("linear", 0.5, 0.01), ("cosine", 0.5, (1 + math.cos(math.pi * 0.99)) / 2)],
)
def test_schedules_rise_over_the_warm_up_and_end_at_zero_after_the_last_step(
    recipe: Recipes, schedule: str, half: float, last: float
) -> None:
    of = recipe(schedule=schedule, learning_rate=0.5, batch_size=10, warmup_examples=200, max_examples=1200)
    rates = [learning_rate_at(of, examples) / 0.5 for examples in range(0, 1200, 10)]
    assert rates[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert rates[20] == max(rates) == 1.0
    assert rates[70] == pytest.approx(half)
    assert rates[-1] == pytest.approx(last)
    assert learning_rate_at(recipe(warmup_examples=0), 0) == recipe().learning_rate


@both
def test_training_in_bfloat16_keeps_weights_in_float32_and_learns(
    tokens: Files, easy: Task, recipe: Recipes, sizes: Sizes, architecture: str
) -> None:
    file = tokens(easy)
    engine = PlainEngine(build_model(sizes(architecture), file.special, 0), recipe(precision="bfloat16"))
    batch = [COLLATE[architecture](file, np.arange(32))]
    losses = [float(engine.step(whole(batch), 3e-3)[0]) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]
    assert {p.dtype for p in engine.model.parameters()} == {torch.float32}


def test_parameters_stay_those_of_the_model_while_they_lie_end_to_end(
    tokens: Files, recipe: Recipes, sizes: Sizes
) -> None:
    file = tokens()
    model: Any = build_model(sizes(), file.special, 0)
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    parameters = list(model.parameters())
    engine = PlainEngine(model, recipe())
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(weights, before[name]) for name, weights in model.state_dict().items())
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == 2
    engine.step(whole([causal_batch(file, np.arange(8))]), 1e-3)
    assert not any(torch.equal(weights, before[name]) for name, weights in model.state_dict().items())
    assert not any(p.grad is None or bool(p.grad.any()) for p in model.parameters())


@both
def test_a_large_model_that_is_not_laid_end_to_end_learns_the_same(
    tokens: Files, recipe: Recipes, sizes: Sizes, architecture: str
) -> None:
    file, collate = tokens(), COLLATE[architecture]
    steps, states = [], []
    for most in (END_TO_END, 0):
        engine = PlainEngine(build_model(sizes(architecture), file.special, 0), recipe(weight_decay=0.1), most)
        batches = [whole([collate(file, np.arange(start, start + 8))]) for start in (0, 8, 16)]
        steps.append([tuple(map(float, engine.step(batch, 1e-3))) for batch in batches])
        states.append({name: tensor.clone() for name, tensor in engine.state()})
    for one, other in zip(*steps, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert float((tensor - states[1][name]).abs().quantile(0.99)) < 1e-5, name


@both
@pytest.mark.parametrize("ends", [(END_TO_END, 0), (0, END_TO_END)])
def test_an_engine_goes_on_from_the_state_of_another_as_that_would_have(
    tokens: Files, recipe: Recipes, sizes: Sizes, architecture: str, ends: tuple[int, int]
) -> None:
    file, collate = tokens(), COLLATE[architecture]
    batches = [whole([collate(file, np.arange(start, start + 8))]) for start in (0, 8, 16, 24)]
    first = PlainEngine(build_model(sizes(architecture), file.special, 0), recipe(), ends[0])
    for batch in batches[:2]:
        first.step(batch, 1e-3)
    state = {name: tensor.clone() for name, tensor in first.state()}
    second = PlainEngine(build_model(sizes(architecture), file.special, 1), recipe(), ends[1])
    second.load_state(state.__getitem__, 2)
    for batch in batches[2:]:
        assert float(second.step(batch, 1e-3)[0]) == pytest.approx(float(first.step(batch, 1e-3)[0]), rel=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_weights_of_a_state_can_be_had_alone(tokens: Files, recipe: Recipes, sizes: Sizes, precision: str) -> None:
    file = tokens()
    engine = PlainEngine(build_model(sizes(), file.special, 0), recipe(precision=precision))
    engine.step(whole([causal_batch(file, np.arange(8))]), 1e-3)
    state = {name: tensor.clone() for name, tensor in engine.state()}
    alone = dict(engine.state(weights_only=True))
    assert list(alone) == [name for name in state if name.startswith("weight/")]
    assert all(torch.equal(tensor, state[name]) for name, tensor in alone.items())


def test_float16_scales_its_losses_and_learns(tokens: Files, easy: Task, recipe: Recipes, sizes: Sizes) -> None:
    file = tokens(easy)
    engine = PlainEngine(build_model(sizes(), file.special, 0), recipe(precision="float16"))
    steps = [engine.step(whole([causal_batch(file, np.arange(32))]), 3e-3) for _ in range(15)]
    assert float(steps[-1][0]) < 0.8 * float(steps[0][0])
    assert float(steps[0][1]) < 100  # the norm is that of gradients that are not scaled


def test_float16_goes_on_with_the_scale_it_had_come_to(tokens: Files, recipe: Recipes, sizes: Sizes) -> None:
    file = tokens()
    batch = whole([causal_batch(file, np.arange(8))])
    first, second = (PlainEngine(build_model(sizes(), file.special, 0), recipe(precision="float16")) for _ in range(2))
    scales = []
    for targets in (batch.targets, 0, batch.targets):  # the second overflows, and is left out
        first.step(replace(batch, targets=targets), 1e-3)
        scales.append(dict(first.state())["loss_scale"].tolist())
    start = scales[0][0]
    assert scales == [[start, 1.0], [start / 2, 0.0], [start / 2, 1.0]]
    state = {name: tensor.clone() for name, tensor in first.state()}
    second.load_state(state.__getitem__, 2)
    assert dict(second.state())["loss_scale"].tolist() == scales[-1]
    assert float(second.step(batch, 1e-3)[0]) == pytest.approx(float(first.step(batch, 1e-3)[0]), rel=1e-3)
