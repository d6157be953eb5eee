"""The bench in memory (showhow/testing) does what the real one does, but for what a model computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.training.test_methods import assigned, ran, small

from showhow.datasets.dataset import Dataset
from showhow.sections.trial import Trial
from showhow.testing import FakeBench, FakeData, carry_out

METHODS = {
    "plain": {"kind": "plain"},
    "step_by_step": {"kind": "step_by_step", "rationale_weight": 0.5},
    "sftmix": {"kind": "sftmix", "checkpoints": 2},
}


def fake(trial: Trial, seed: int = 0) -> FakeBench:
    return FakeBench(
        task=trial.task,
        level=trial.level,
        seed=seed,
        amount=trial.budget.amount,
        batch_size=trial.recipe.batch_size,
        train_examples=trial.data.train_examples,
        eval_examples=trial.data.eval_examples,
    )


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_both_make_the_same_stages_in_the_same_order_and_charge_the_same_examples(
    trial: Callable[..., Trial], tmp_path: Path, method: dict[str, Any]
) -> None:
    of = small(trial, method=method, max_examples=328)  # not whole batches
    _, heard = ran(of, tmp_path)
    bench = fake(of)
    carry_out(of.method, bench)
    assert [(stage.operation, stage.spent.examples) for stage in bench.stages] == [
        (operation, spent.examples) for operation, _, _, spent in heard.stages
    ]
    assert bench.budget.spent.examples == heard.reports[-1]["examples"] <= 328


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_both_prepare_the_same_rows_at_the_same_address(
    trial: Callable[..., Trial], tmp_path: Path, method: dict[str, Any]
) -> None:
    of = small(trial, method=method)
    real = Dataset.open(assigned(of, tmp_path).shards["train"].parent)
    prepared = of.method.prepare(fake(of).preparing())
    assert isinstance(prepared, FakeData)
    assert prepared.address == real.address
    assert [*prepared.rows()] == [*real.rows()]


def test_both_split_and_mix_alike(trial: Callable[..., Trial], tmp_path: Path) -> None:
    from showhow.datasets.data_bench import DataBench

    real, memory = DataBench(trial(), tmp_path, seed=3), fake(trial(), seed=3)
    for by in (None, "answer"):
        ours, theirs = (bench.split(bench.problems(), 3, by=by) for bench in (memory, real))
        assert [one.address for one in ours] == [one.address for one in theirs]
        assert [[*one.rows()] for one in ours] == [[*one.rows()] for one in theirs]  # type: ignore[attr-defined]
    ours, theirs = (bench.mix({"a": bench.problems(), "b": bench.problems("test")}) for bench in (memory, real))
    assert (ours.address, [*ours.rows()]) == (theirs.address, [*theirs.rows()])  # type: ignore[attr-defined]
