"""Laws of the bench in memory: what has one address is the same and made once; budgets are spent as on a real one."""

from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.errors import TrialError, UserError
from showhow.methods.bench import Bench, Sampling
from showhow.methods.losses import Mixup
from showhow.methods.plain import Plain
from showhow.methods.row import Row
from showhow.methods.sftmix import SftMix
from showhow.methods.step_by_step import StepByStep
from showhow.tasks.explain import Level
from showhow.tasks.modular_sum import ModularSum
from showhow.testing import FakeBench, FakeData, carry_out

TASK = ModularSum(terms=4)


def bench(**changes: Any) -> FakeBench:
    return FakeBench(TASK, **changes)


def doubled(row: Row, word: str = "again") -> list[Row]:
    return [row, row.with_(part=word)]


def is_even(row: Row) -> bool:
    return int(row.answer) % 2 == 0


def test_it_is_a_bench() -> None:
    of: Bench = bench()
    assert of.seed == 0
    assert of.budget.left == 640


@settings(deadline=None, max_examples=60)
@given(amount=st.integers(1, 400), batch=st.integers(1, 40), wanted=st.one_of(st.none(), st.floats(0.01, 500)))
def test_training_takes_whole_batches_that_do_not_exceed_what_is_left(
    amount: int, batch: int, wanted: float | None
) -> None:
    of = bench(amount=amount, batch_size=batch, train_examples=30)
    most = amount if wanted is None else min(amount, wanted * amount if wanted < 1 else wanted)
    train = partial(of.train, of.start(), of.problems(), examples=wanted)
    if most < batch:
        with pytest.raises(TrialError, match="less than one batch"):
            train()
    else:
        train()
        assert of.budget.spent.examples == most // batch * batch
        assert of.budget.left == amount - of.budget.spent.examples


@pytest.mark.parametrize("unit", ["tokens", "flops"])
def test_a_budget_in_tokens_or_flops_is_spent_to_the_last_batch_that_fits(unit: Any) -> None:
    amount = 20_000 if unit == "tokens" else 20_000 * 6000.0
    of = bench(unit=unit, amount=amount)
    model = of.start()
    of.train(model, of.problems())
    spent = of.budget.spent
    assert spent.flops == 6000 * spent.tokens
    assert 0 <= of.budget.left < amount * 16 * max(of.problems().tokens) / 20_000


def test_a_stage_is_made_once_and_charged_to_everybody_who_uses_it() -> None:
    first = bench()
    carry_out(SftMix(), first)
    again = bench(store=first.store)
    carry_out(SftMix(alpha=0.9), again)
    other_seed = bench(store=first.store, seed=1)
    carry_out(SftMix(), other_seed)
    assert not any(stage.is_reused for stage in first.stages)
    assert [stage.is_reused for stage in again.stages if stage.operation in ("train", "score")] == [True] * 4 + [False]
    assert not any(stage.is_reused for stage in other_seed.stages)
    assert first.budget.spent == again.budget.spent
    assert first.budget.by_kind["training"].examples == 640


def test_an_address_is_of_operation_version_settings_and_inputs() -> None:
    of = bench()
    data = of.problems()
    made = [
        of.map(data, doubled, version=1),
        of.map(data, doubled, version=2),
        of.map(data, partial(doubled, word="more"), version=1),
        of.map(of.problems(level=Level.SHORT), doubled, version=1),
        of.map(data, StepByStep().both, version=1),
        of.map(data, StepByStep(rationale_weight=0.5).both, version=1),
        of.select(data, is_even, version=1),
        of.select(data, is_even, version=1, balance="answer"),
        *of.split(data, 2),
        *of.split(data, 2, by="target"),
        of.mix({"one": data}),
    ]
    assert len({one.address for one in made}) == len(made)
    assert of.map(bench(seed=7).problems(), doubled, version=1).address == made[0].address
    assert bench(seed=7).split(data, 2)[0].address != made[8].address


def test_what_an_address_would_not_tell_is_refused() -> None:
    of, words = bench(), ["again"]
    with pytest.raises(TrialError, match="bound to"):
        of.map(of.problems(), lambda row: doubled(row, words[0]), version=1)
    with pytest.raises(TrialError, match="bound to"):
        of.map(of.problems(), partial(doubled, word=words), version=1)  # type: ignore[arg-type]
    with pytest.raises(TrialError, match="belongs to"):
        of.map(of.problems(), Holder().both, version=1)


class Holder:
    def both(self, row: Row) -> list[Row]:
        return [row]


def test_rows_are_split_whole_mixed_by_name_and_selected_in_balance() -> None:
    of = bench()
    data = of.problems()
    for by in (None, "answer"):
        parts = of.split(data, 4, by=by)
        assert sorted(len(part) for part in parts) == [37, 37, 38, 38]
        assert sorted(row.question for part in parts for row in part.rows()) == sorted(r.question for r in data.rows())
    assert max(row.answer for row in parts[0].rows()) <= min(row.answer for row in parts[3].rows())
    mixed = of.mix({"low": parts[0], "high": parts[3]})
    assert {row.part for row in mixed.rows()} == {"low", "high"}
    kept = [row.answer for row in of.select(data, is_even, version=1, balance="answer").rows()]
    assert len({kept.count(answer) for answer in kept}) == 1
    with pytest.raises(TrialError, match="leaves no row"):
        of.select(data, _never, version=1)
    with pytest.raises(TrialError, match='split by "nll"'):
        of.split(data, 2, by="nll")


def _never(row: Row) -> bool:
    return False


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_so_many_replies_are_right_and_the_same_ones_each_time(share: float) -> None:
    of = bench(share_right=share, eval_examples=400)
    model = carry_out(Plain(), of)
    graded = of.grade(of.reply(model, of.problems("test")))
    right = [bool(row.columns["right"]) for row in graded.rows()]
    assert sum(right) == pytest.approx(share * 400, abs=40 if 0 < share < 1 else 0)
    other = bench(share_right=share, eval_examples=400)
    again = other.grade(other.reply(carry_out(Plain(), other), other.problems("test")))
    assert (again.address, [*again.rows()]) == (graded.address, [*graded.rows()])
    assert of.budget.by_kind["replies"].tokens > 0


def test_replies_to_bare_answers_are_graded_as_such_whatever_the_level() -> None:
    of, method = bench(share_right=1.0), StepByStep()
    asked = of.map(of.problems("test"), partial(as_asked, method=method), version=1)
    graded = of.grade(of.reply(of.start(), asked))
    assert all(row.columns["right"] and "steps_right" not in row.columns for row in graded.rows())


def as_asked(row: Row, method: StepByStep) -> list[Row]:
    return [method.asked(row)]


def test_what_is_left_of_the_budget_is_part_of_a_trainings_address() -> None:
    of = bench()
    model, data = of.start(), of.problems()
    first, again = (of.train(model, data, examples=0.4, watched=False)[0] for _ in range(2))
    assert first == again
    cut = of.train(model, data, examples=0.4, watched=False)[0]  # a fifth is left
    assert cut != first
    assert of.budget.left == 0


def test_sampled_replies_differ_and_come_so_many_a_question() -> None:
    of = bench(eval_examples=10)
    model, data = of.start(), of.problems("test")
    sampled = [*of.reply(model, data, Sampling(temperature=1.0, replies=20)).rows()]
    assert len(sampled) == 200
    assert [row.columns["reply_number"] for row in sampled[:20]] == [*range(20)]
    assert len({row.columns["reply"] for row in sampled[:20]}) > 1
    greedy = [*of.reply(model, data, Sampling(replies=2)).rows()]
    assert all(
        first.columns["reply"] == second.columns["reply"] for first, second in zip(*[iter(greedy)] * 2, strict=True)
    )


def test_scores_are_a_function_of_model_and_row() -> None:
    of = bench()
    data = of.problems()
    early, late = of.train(of.start(), data, examples=0.5, keep=2, watched=False)
    scored = of.score(late, of.score(early, data, column="early"), column="late")
    for row in scored.rows():
        assert 0 < float(row.columns["early"] or 0) < 4
        assert row.columns["early"] != row.columns["late"]
    assert early.trained_on == late.trained_on == (data.address,)
    assert of.average([early, late]).trained_on == (data.address,)


def test_what_a_real_bench_refuses_is_refused() -> None:
    of = bench()
    data = of.problems()
    with pytest.raises(TrialError, match="watched=False"):
        of.train(of.start(), data, keep=2)
    with pytest.raises(TrialError, match="two parts"):
        of.train(of.start(), data, loss=Mixup())
    with pytest.raises(TrialError, match="must have been trained"):
        of.average([of.start()])
    with pytest.raises(TrialError, match="no reply to grade"):
        of.grade(data)
    with pytest.raises(TrialError, match="prepare makes data only"):
        of.preparing().start()
    with pytest.raises(TrialError, match="where a model of this bench"):
        of.report("model")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="fewer examples or a larger task"):
        FakeBench(ModularSum(terms=2, below=3, modulus=3)).problems()


def test_every_batch_of_mixed_pairs_has_half_of_each_part() -> None:
    from showhow.testing.lessons import batches

    of = bench()
    first, second = of.split(of.problems(), 2, by="target")
    mixed = of.mix({"a": first, "b": second})
    assert isinstance(mixed, FakeData)
    stream = batches(mixed, Mixup(), 10, seed=0)
    for _ in range(20):
        parts = [mixed.all_rows[row].part for row in next(stream)]
        assert (parts.count("a"), parts.count("b")) == (5, 5)


def test_a_report_is_noted_and_a_model_tells_what_it_was_trained_on() -> None:
    of = bench()
    data = of.problems()
    (model,) = of.train(of.start(), data)
    of.report(model)
    assert of.reports == [model.address]
    assert [stage.operation for stage in of.stages] == ["problems", "train"]
