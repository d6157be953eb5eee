"""Laws of methods on a real bench: what they train on, what they are charged, what they share, and that they resume."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from tests.training.conftest import Files, Recipes, words
from torch.nn.functional import cross_entropy

from showhow.bench.fine_tune import Outcome, fine_tune
from showhow.datasets.dataset import Dataset
from showhow.datasets.prepare import Preparation
from showhow.errors import TrialError, UserError
from showhow.machines.assignment import Assignment
from showhow.machines.fitting import layout_of
from showhow.methods import METHODS
from showhow.methods.base import Method
from showhow.methods.bench import Bench, Data, Model
from showhow.methods.losses import CrossEntropy, Mixup
from showhow.methods.row import Row
from showhow.methods.sftmix import SftMix
from showhow.methods.step_by_step import StepByStep
from showhow.sections.resources import Resources, Sharding
from showhow.sections.trial import Trial
from showhow.tasks.base import Task
from showhow.tasks.explain import Level
from showhow.training.batches import IGNORED, Source, causal_batch, seq2seq_batch, training_batches
from showhow.training.checkpoints.files import Manifest, complete, named, read_weights
from showhow.training.losses import loss_part, mixup_loss, target_logits
from showhow.training.model import build_model, is_seq2seq
from showhow.training.tokens import TokenFile
from showhow.training.weights import answer_lengths, weights_of

Made = Callable[..., Trial]
Steps = Callable[[Bench, Data], Model]


class Scripted(Method):
    """Does what a test says."""

    kind: Literal["scripted"] = "scripted"
    script: ClassVar[Steps]

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        """See Method."""
        assert prepared is not None
        return type(self).script(bench, prepared)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Steps], dict[str, str]]:
    """Make a method of a function."""
    monkeypatch.setitem(METHODS, "scripted", Scripted)

    def made(steps: Steps) -> dict[str, str]:
        monkeypatch.setattr(Scripted, "script", staticmethod(steps), raising=False)
        return {"kind": "scripted"}

    return made


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
    assert mixed.item() == plain.item()


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


def test_models_are_kept_evenly_apart_also_where_the_batches_do_not_divide(
    trial: Made, tmp_path: Path, scripted: Any
) -> None:
    def steps(bench: Bench, data: Data) -> Model:
        return bench.train(bench.start(), data, examples=160, keep=3, watched=False)[-1]

    _, heard = ran(small(trial, method=scripted(steps)), tmp_path)
    stage = tmp_path / "stages" / heard.of("train")[0][1]
    assert [complete(stage / f"model-{number}")[0] // 16 for number in range(3)] == [3, 6, 10]
    assert not (stage / "state").exists(), "nobody resumes a finished stage"


def test_more_models_than_batches_are_refused(trial: Made, tmp_path: Path, scripted: Any) -> None:
    def steps(bench: Bench, data: Data) -> Model:
        return bench.train(bench.start(), data, examples=32, keep=5, watched=False)[-1]

    with pytest.raises(TrialError, match="keep = 5 models of a training of 2 batches"):
        ran(small(trial, method=scripted(steps)), tmp_path)


def test_what_is_kept_of_a_run_is_the_model_that_its_method_returned(
    trial: Made, tmp_path: Path, scripted: Any
) -> None:
    def steps(bench: Bench, data: Data) -> Model:
        first, last = (bench.train(bench.start(), data, examples=0.5)[0] for _ in range(2))
        return bench.average([first, last, last])

    place = tmp_path / "run"
    _, heard = ran(small(trial, method=scripted(steps)), tmp_path, checkpoints=place, save_every_seconds=0.0)
    kept = read_weights(place)
    averaged = read_weights(tmp_path / "stages" / heard.of("average")[0][1] / "model-0")
    assert kept is not None
    assert averaged is not None
    assert all(torch.equal(kept[name], averaged[name]) for name in averaged)
    manifest = Manifest.of(named(place, complete(place)[0]))
    assert manifest is not None
    assert manifest.standing.progress.examples == 640


def test_every_report_of_two_watched_trainings_is_heard(trial: Made, tmp_path: Path, scripted: Any) -> None:
    def steps(bench: Bench, data: Data) -> Model:
        (half,) = bench.train(bench.start(), data, examples=0.5)
        return bench.train(half, data)[0]

    _, heard = ran(small(trial, method=scripted(steps)), tmp_path)
    assert [report["examples"] for report in heard.reports] == [160, 320, 480, 640]


def test_a_stage_whose_record_was_cut_is_made_once_more(trial: Made, tmp_path: Path) -> None:
    of = small(trial, method=SFTMIX)
    whole, heard = ran(of, tmp_path)
    record = tmp_path / "stages" / heard.of("train")[0][1] / "stage.json"
    record.write_bytes(record.read_bytes()[:40])
    again, heard = ran(of, tmp_path)
    assert again == whole
    assert heard.of("train")[0][2] is False


def test_another_trial_resumes_a_stage_that_one_left_unfinished(
    trial: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    import showhow.bench.training as training

    steps: list[int] = []
    real = training._Course.steps

    def counted(course: Any, job: Any, every: int) -> Any:
        for progress in real(course, job, every):
            yield progress
            steps.append(progress.examples)
            if len(steps) == 1:
                raise Killed

    monkeypatch.setattr(training._Course, "steps", counted)
    with pytest.raises(Killed):
        ran(small(trial, method=SFTMIX), tmp_path, save_every_seconds=0.0)
    ran(small(trial, method=SFTMIX | {"alpha": 0.9}), tmp_path, save_every_seconds=0.0)
    assert steps[:2] == [80, 160], "not from the start once more"


def test_a_stage_that_ends_as_the_budget_is_spent_is_not_taken_for_one_that_ends_by_itself(
    trial: Made, tmp_path: Path, scripted: Any
) -> None:
    def twice(bench: Bench, data: Data) -> Model:
        bench.train(bench.start(), bench.split(data, 2)[0], examples=0.6, watched=False)
        return bench.train(bench.start(), data, examples=0.6, watched=False)[-1]

    def once(bench: Bench, data: Data) -> Model:
        return bench.train(bench.start(), data, examples=0.6, watched=False)[-1]

    examples = []
    for steps in (twice, once):
        _, heard = ran(small(trial, method=scripted(steps)), tmp_path)
        examples.append(heard.of("train")[-1][3].examples)
    assert examples == [256, 384]


def test_replies_are_graded_at_the_level_of_their_own_problems(trial: Made, tmp_path: Path, scripted: Any) -> None:
    found: list[tuple[bool, bool]] = []

    def steps(bench: Bench, _: Data) -> Model:
        bare = bench.problems(level=Level.NONE)
        (model,) = bench.train(bench.start(), bare, examples=600, watched=False)
        graded: Any = bench.grade(bench.reply(model, bare))
        found.extend((row.value("right"), row.value("reply") == row.target) for row in graded.rows())
        return model

    ran(small(trial, method=scripted(steps)), tmp_path)
    assert any(right for right, _ in found)
    assert all(right == same for right, same in found)


def test_data_that_no_tokenizer_can_spell_fail_the_run_and_say_so(trial: Made, tmp_path: Path, scripted: Any) -> None:
    def steps(bench: Bench, data: Data) -> Model:
        return bench.train(bench.start(), bench.map(data, lambda row: [row.with_(target="@@")], version=1))[-1]

    with pytest.raises(TrialError, match=r"^[^:]*: the tokenizer does not know a symbol"):
        ran(small(trial, method=scripted(steps)), tmp_path)


@pytest.mark.parametrize(
    ("prepares", "says"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: [1, 2], "prepared list; prepare must return data of the bench, or None"),
        (lambda bench: bench.map(bench.problems(), lambda row: [row.with_(target=3)], version=1), "ArrowTypeError"),
    ],
)
def test_a_method_that_cannot_prepare_its_data_is_refused_in_words(
    trial: Made, tmp_path: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch, prepares: Any, says: str
) -> None:
    monkeypatch.setattr(Scripted, "prepare", lambda _self, bench: prepares(bench), raising=False)
    with pytest.raises(UserError, match=says):
        assigned(small(trial, method=scripted(lambda bench, _: bench.start())), tmp_path)


def test_micro_batches_of_pairs_are_no_larger_than_they_may_be(halves: TokenFile, recipe: Recipes) -> None:
    source = Source(halves, recipe(batch_size=12), 0, False, Mixup())
    for micro in (2, 3, 4, 5, 12):
        assert max(len(batch["labels"]) for batch in next(training_batches(source, micro)).micro_batches) <= micro


def test_weights_of_answer_tokens_count_alike_packed_and_not_and_in_models_with_an_encoder(
    tokens: Files, varied: Task, recipe: Recipes, sizes: Any
) -> None:
    file, loss = tokens(varied), CrossEntropy(answer_weight=5.0)
    weights = weights_of(file, loss, words(varied).tokenizer, Level.LONG)
    for architecture, batching in (("llama", "grouped"), ("llama", "packed"), ("t5", "grouped")):
        model = build_model(sizes(architecture), file.special, 0)
        of = recipe(batching=batching)
        step = next(training_batches(Source(file, of, 0, architecture == "t5", loss, weights)))
        collate = seq2seq_batch if architecture == "t5" else causal_batch
        rows = next(Source(file, of, 0, False).order())
        total = counted = 0.0
        for row in rows:
            logits, labels = target_logits(model, collate(file, np.array([row])))
            weight = torch.ones(len(labels))
            weight[-2:] = 5.0  # the answer, one sign, and the end
            total += float((cross_entropy(logits, labels, reduction="none") * weight).sum())
            counted += float(weight.sum())
        found = sum(float(loss_part(model, batch, step, loss)) for batch in step.micro_batches)
        assert found == pytest.approx(total / counted, rel=1e-4), (architecture, batching)
