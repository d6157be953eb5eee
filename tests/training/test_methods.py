"""Laws of methods on a real bench: what they train on, what they are charged, what they share, and that they resume."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.conftest import Files, Recipes, words
from torch.nn.functional import cross_entropy

from showhow.bench.fine_tune import Outcome, fine_tune
from showhow.datasets.dataset import Dataset
from showhow.datasets.prepare import Preparation
from showhow.errors import TrialError
from showhow.machines.assignment import Assignment
from showhow.machines.fitting import layout_of
from showhow.methods.losses import CrossEntropy, Mixup
from showhow.methods.row import Row
from showhow.methods.sftmix import SftMix
from showhow.methods.step_by_step import StepByStep
from showhow.sections.resources import Resources, Sharding
from showhow.sections.trial import Trial
from showhow.tasks.base import Task
from showhow.tasks.explain import Level
from showhow.training.batches import IGNORED, Source, causal_batch, training_batches
from showhow.training.losses import loss_part, mixup_loss, target_logits
from showhow.training.model import build_model, is_seq2seq
from showhow.training.tokens import TokenFile
from showhow.training.weights import answer_lengths, weights_of

Made = Callable[..., Trial]
SFTMIX = {"kind": "sftmix", "checkpoints": 2, "reference_share": 0.25}


class Heard:
    """What a run says."""

    def __init__(self) -> None:
        self.reports: list[dict[str, float]] = []
        self.stages: list[tuple[str, str, bool, Any]] = []

    def stage(self, operation: str, address: str, is_reused: bool, spent: Any, _seconds: float) -> None:
        self.stages.append((operation, address, is_reused, spent))

    def of(self, operation: str) -> list[tuple[str, str, bool, Any]]:
        return [stage for stage in self.stages if stage[0] == operation]


def assigned(trial: Trial, home: Path, seed: int = 0, **changes: Any) -> Assignment:
    ready = Preparation(home, lambda _line: None).of(trial)
    return Assignment(
        trial=trial,
        seed=seed,
        shards={split: Path(path) for split, path in ready.shards.items()},
        tokenizer=Path(ready.tokenizer),
        goal_accuracy=None,
        layout=layout_of(trial, Resources(), Sharding()),
        **{"home": home} | changes,
    )


def ran(trial: Trial, home: Path, seed: int = 0, **changes: Any) -> tuple[Outcome, Heard]:
    heard = Heard()
    run = assigned(trial, home, seed, **changes)
    return fine_tune(run, heard.reports.append, stage=heard.stage), heard


def small(trial: Made, **changes: Any) -> Trial:
    return trial(**{"max_examples": 640, "evaluation": {"every_examples": 160}} | changes)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
@pytest.mark.parametrize("kind", ["step_by_step", "sftmix"])
def test_every_method_runs_to_its_end_and_is_graded(trial: Made, tmp_path: Path, kind: str, architecture: str) -> None:
    outcome, heard = ran(small(trial, architecture=architecture, method={"kind": kind}), tmp_path)
    assert len(outcome.grades) == 12
    final = heard.reports[-1]
    assert 0 <= final["test/accuracy"] <= 1
    assert final["examples"] <= 640
    assert np.isfinite(final["train_loss"])


def test_step_by_step_learns_two_rows_a_problem_and_answers_at_once(trial: Made, tmp_path: Path) -> None:
    of = trial(max_examples=4800, evaluation={"every_examples": 4800}, method={"kind": "step_by_step"})
    run = assigned(of, tmp_path)
    rows = [*Dataset.open(run.shards["train"].parent).rows()]
    assert len(rows) == 2 * of.data.train_examples
    assert {row.part for row in rows} == {"label", "rationale"}
    for label, rationale in zip(rows[0::2], rows[1::2], strict=True):
        assert label.question == rationale.question
        assert label.target == label.answer
        assert "answer" not in rationale.target
        assert rationale.target
    outcome, _ = ran(of, tmp_path)
    assert all(str(sample["target"]).isdigit() for sample in outcome.samples["test"])
    assert sum(str(sample["reply"]).isdigit() for sample in outcome.samples["test"]) > 6


def test_a_stage_is_made_once_and_charged_to_everybody_who_uses_it(trial: Made, tmp_path: Path) -> None:
    _, first = ran(small(trial, method=SFTMIX), tmp_path)
    _, again = ran(small(trial, method=SFTMIX | {"alpha": 0.9}), tmp_path)
    _, control = ran(small(trial, method=SFTMIX | {"halves": "random"}), tmp_path)
    _, other_seed = ran(small(trial, method=SFTMIX), tmp_path, seed=1)
    reference = first.of("train")[0]
    assert not reference[2]
    for heard in (again, control):
        assert heard.of("train")[0] == (*reference[:2], True, reference[3])
        assert [stage[2] for stage in heard.of("score")] == [True, True]
    assert other_seed.of("train")[0][1] != reference[1]
    assert first.reports[-1]["examples"] == again.reports[-1]["examples"] == control.reports[-1]["examples"] == 640
    assert reference[3].examples == 160
    flops = sum(stage[3].flops for stage in first.stages)
    assert first.reports[-1]["flops"] == pytest.approx(flops)
    assert first.reports[0]["examples"] == 160 + 160


def test_an_interrupted_stage_resumes_and_leaves_the_same_model(
    trial: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = small(trial, method=SFTMIX)
    whole, _ = ran(of, tmp_path / "whole", save_every_seconds=0.0)

    class Killed(BaseException):
        pass

    import showhow.bench.training as training

    saves = []
    real = training._save

    def dying(*arguments: Any) -> None:
        saves.append(arguments)
        real(*arguments)
        if len(saves) == 2:
            raise Killed

    monkeypatch.setattr(training, "_save", dying)
    with pytest.raises(Killed):
        ran(of, tmp_path / "cut", save_every_seconds=0.0)
    monkeypatch.setattr(training, "_save", real)
    resumed, heard = ran(of, tmp_path / "cut", save_every_seconds=0.0)
    assert resumed == whole
    assert heard.of("train")[0][2] is False


@pytest.mark.parametrize("unit", ["tokens", "flops"])
def test_a_run_ends_at_its_budget_in_the_unit_of_the_study(trial: Made, tmp_path: Path, unit: str) -> None:
    _, free = ran(small(trial), tmp_path)
    amount = free.reports[1][unit] * 1.01
    of = small(trial)
    bounded = of.model_copy(update={"budget": of.budget.model_copy(update={"unit": unit, "amount": amount})})
    _, heard = ran(bounded, tmp_path)
    assert heard.reports[-1][unit] <= amount
    assert heard.reports[-1]["examples"] == 320
    too_little = bounded.model_copy(update={"budget": of.budget.model_copy(update={"unit": unit, "amount": 3.0})})
    with pytest.raises(TrialError, match="less than one batch"):
        ran(too_little, tmp_path)


@pytest.fixture
def halves(trial: Made, tmp_path: Path) -> TokenFile:
    """Rows of two parts, of unequal lengths."""
    from showhow.datasets import derived
    from showhow.datasets.data_bench import DataBench
    from showhow.datasets.prepare import tokens_of

    of = trial()
    bench = DataBench(of, tmp_path)
    longer = derived.mapped(
        bench.problems(), tmp_path, lambda row: [row.with_(target="1 " * (len(row.answer) + 1) + row.target)], 1
    )
    parts = {"confident": bench.problems(), "unconfident": longer}
    return TokenFile(tokens_of(bench.mix(parts), of, words(of.task)))


def test_every_batch_has_half_of_each_part_and_every_row_of_a_part_comes_once_a_pass(
    halves: TokenFile, recipe: Recipes
) -> None:
    source = Source(halves, recipe(batch_size=10), 3, False, Mixup())
    order = source.order()
    seen: list[int] = []
    for _ in range(15):
        rows = next(order)
        assert halves.parts[rows].tolist() == [0, 1] * 5
        seen += rows[0::2].tolist()
    assert len(set(seen[:50])) == 50
    assert next(source.order()).tolist() == next(source.order()).tolist()


def test_pairs_stay_together_in_micro_batches_and_have_the_same_share_whatever_their_size(
    halves: TokenFile, recipe: Recipes
) -> None:
    source = Source(halves, recipe(batch_size=12), 0, False, Mixup())
    whole = next(training_batches(source))
    small_ = next(training_batches(source, 3))
    assert [len(batch["labels"]) % 2 for batch in small_.micro_batches] == [0] * len(small_.micro_batches)
    assert (
        torch.cat([batch["shares"] for batch in small_.micro_batches]).tolist()
        == whole.micro_batches[0]["shares"].tolist()
    )
    assert (small_.mixed, small_.targets) == (whole.mixed, whole.targets)


def test_without_mu_mixup_is_cross_entropy_bit_for_bit(halves: TokenFile, recipe: Recipes, sizes: Any) -> None:
    step = next(training_batches(Source(halves, recipe(batch_size=12), 0, False, Mixup(mu=0.0))))
    model = build_model(sizes(), halves.special, 0)
    (batch,) = step.micro_batches
    mixed, plain = (loss_part(model, batch, step, loss) for loss in (Mixup(mu=0.0), CrossEntropy()))
    assert float(mixed) == float(plain)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_with_a_share_of_one_the_mixed_loss_is_that_of_the_first_row_cut_to_the_shorter(
    halves: TokenFile, recipe: Recipes, sizes: Any, architecture: str
) -> None:
    model = build_model(sizes(architecture), halves.special, 0)
    seq2seq = is_seq2seq(model)
    (batch,) = next(training_batches(Source(halves, recipe(batch_size=8), 0, seq2seq, Mixup()))).micro_batches
    batch["shares"] = torch.ones(4)
    logits, labels = target_logits(model, batch)
    lengths = (batch["labels"] != IGNORED).sum(1).tolist()
    logits_of, labels_of = torch.split(logits, lengths), torch.split(labels, lengths)
    expected = sum(
        cross_entropy(
            logits_of[row][: min(lengths[row : row + 2])],
            labels_of[row][: min(lengths[row : row + 2])],
            reduction="sum",
        )
        for row in range(0, 8, 2)
    )
    assert float(mixup_loss(logits, labels, batch)) == pytest.approx(float(expected), rel=1e-5)


def test_the_gradient_of_mixed_pairs_is_not_that_of_the_rows_apart(
    halves: TokenFile, recipe: Recipes, sizes: Any
) -> None:
    model = build_model(sizes(), halves.special, 0)
    step = next(training_batches(Source(halves, recipe(batch_size=8), 0, False, Mixup())))
    (batch,) = step.micro_batches

    def gradient(share: float) -> torch.Tensor:
        model.zero_grad()
        logits, labels = target_logits(model, batch)
        mixup_loss(logits, labels, batch | {"shares": torch.full((4,), share)}).backward()
        return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])

    apart = 0.5 * gradient(1.0) + 0.5 * gradient(0.0)
    assert float((gradient(0.5) - apart).norm() / apart.norm()) > 0.01


def test_answer_tokens_can_weigh_more_than_explanation_tokens(
    tokens: Files, easy: Task, recipe: Recipes, sizes: Any
) -> None:
    file, tokenizer = tokens(), words(easy).tokenizer
    model, loss = build_model(sizes(), file.special, 0), CrossEntropy(answer_weight=5.0)
    weights = weights_of(file, loss, tokenizer, Level.LONG)
    assert weights is not None
    assert set(answer_lengths(file, tokenizer, Level.LONG).tolist()) == {2}  # the answer and the end
    assert answer_lengths(file, tokenizer, Level.NONE).tolist() == file.target_lengths.tolist()
    step = next(training_batches(Source(file, recipe(), 0, False, loss, weights)))
    (batch,) = step.micro_batches
    plain = causal_batch(file, next(Source(file, recipe(), 0, False).order()))
    logits, labels = target_logits(model, plain)
    losses = torch.split(cross_entropy(logits, labels, reduction="none"), (plain["labels"] != IGNORED).sum(1).tolist())
    expected = sum(float(row[:-2].sum() + 5 * row[-2:].sum()) for row in losses) / sum(len(row) + 8 for row in losses)
    assert float(loss_part(model, batch, step, loss)) == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_rows_counts_long_and_short_ones_alike(
    halves: TokenFile, recipe: Recipes, sizes: Any, easy: Task
) -> None:
    model, loss = build_model(sizes(), halves.special, 0), CrossEntropy(mean_over="rows")
    weights = weights_of(halves, loss, words(easy).tokenizer, Level.LONG)
    step = next(training_batches(Source(halves, recipe(), 0, False, loss, weights)))
    (batch,) = step.micro_batches
    logits, labels = target_logits(model, batch)
    rows = torch.split(cross_entropy(logits, labels, reduction="none"), (batch["labels"] != IGNORED).sum(1).tolist())
    assert float(loss_part(model, batch, step, loss)) == pytest.approx(
        np.mean([float(row.mean()) for row in rows]), rel=1e-5
    )


def test_the_rows_of_both_methods_are_pure_functions_of_a_problem() -> None:
    row = Row("3+9=", "3+9=", "3+9=2 answer 2", "2", explanation="3+9=2")
    label, rationale = StepByStep(rationale_weight=0.5).both(row)
    assert (label.prompt, label.target, label.weight) == ("[label] 3+9=", "2", 1.0)
    assert (rationale.prompt, rationale.target, rationale.weight) == ("[rationale] 3+9=", "3+9=2", 0.5)
    assert SftMix(halves="random").is_control
    assert not SftMix().is_control


def test_stages_lie_in_the_home_under_what_was_computed(trial: Made, tmp_path: Path) -> None:
    _, heard = ran(small(trial, method=SFTMIX), tmp_path)
    operation, address, _, spent = heard.of("train")[0]
    record = json.loads((tmp_path / "stages" / address / "stage.json").read_text())
    assert (record["operation"], record["examples"], record["models"]) == (operation, spent.examples, 2)
    assert not [*(tmp_path / "stages").glob(".*.claim")]
