"""One fine-tuning from end to end: a small model learns an easy task, and what it reports is what the study named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from showhow.bench.fine_tune import Outcome, fine_tune
from showhow.errors import TrialError
from showhow.machines.assignment import Assignment
from showhow.metrics import find
from showhow.sections.trial import Trial

Reports = list[dict[str, float]]
Prepared = Callable[..., Assignment]


def run(trial: Trial, prepared: Prepared, goal: float | None, seed: int = 0) -> tuple[Outcome, Reports]:
    reports: Reports = []
    return fine_tune(prepared(trial, seed, goal), reports.append), reports


def test_a_small_model_learns_an_easy_task_and_the_goal_ends_its_run(
    trial: Callable[..., Trial], prepared: Prepared
) -> None:
    outcome, reports = run(trial(), prepared, goal=0.95)
    final = reports[-1]
    assert final["test/accuracy"] > 0.9
    assert outcome.reached_goal
    assert final["examples"] == 800 * len(reports) < 8000
    assert final["validation/accuracy"] >= 0.95
    assert final["examples_until_solved"] <= final["examples"]
    assert final["test/accuracy"] == sum(outcome.grades) / len(outcome.grades)


def test_one_lucky_answer_does_not_reach_the_goal(trial: Callable[..., Trial], prepared: Prepared) -> None:
    asked_one = {"every_examples": 80, "validation_examples": 1}
    outcome, reports = run(trial(evaluation=asked_one), prepared, goal=0.95)
    assert any(report["validation/accuracy"] == 1.0 for report in reports[:-1])
    assert outcome.reached_goal
    assert reports[-1]["test/accuracy"] > 0.8


def test_every_metric_is_named_in_the_metrics_floor_and_splits_are_graded_at_the_end(
    trial: Callable[..., Trial], prepared: Prepared
) -> None:
    outcome, reports = run(trial(max_examples=808, evaluation={"every_examples": 400}), prepared, goal=None)
    assert [report["examples"] for report in reports] == [400, 800]
    assert not outcome.reached_goal
    for report in reports:
        assert all(find(name).name == name.rpartition("/")[2] for name in report)
        assert all(isinstance(value, float) for value in report.values())
    assert {name.partition("/")[0] for name in reports[0] if "/" in name} == {"validation"}
    assert {name.partition("/")[0] for name in reports[-1] if "/" in name} == {"validation", "test", "longer"}
    assert {"train_loss", "eval_seconds", "validation/accuracy", "validation/steps_right"} <= set(reports[0])
    assert len(outcome.grades) == 12
    assert {split: len(rows) for split, rows in outcome.samples.items()} == {"test": 12, "longer": 12}
    assert set(outcome.samples["test"][0]) >= {"question", "target", "reply", "answer_right"}


@pytest.mark.parametrize("architecture", ["llama", "t5"])
@pytest.mark.parametrize("level", ["none", "short", "medium", "shuffled", "filler"])
def test_every_level_trains_and_says_what_applies_to_it(
    trial: Callable[..., Trial], prepared: Prepared, level: str, architecture: str
) -> None:
    _, reports = run(trial(level, architecture, {"every_examples": 160}, max_examples=160), prepared, None)
    (report,) = reports
    assert ("test/steps_right" in report) == (level in ("short", "medium"))
    assert 0.0 <= report["test/accuracy"] <= 1.0
    assert report["test/tokens_per_reply"] >= 1.0


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    trial: Callable[..., Trial], prepared: Prepared
) -> None:
    def told(seed: int) -> list[dict[str, float]]:
        _, reports = run(trial(max_examples=320, evaluation={"every_examples": 160}), prepared, None, seed)
        times = ("seconds", "per_second")
        return [{name: value for name, value in one.items() if not name.endswith(times)} for one in reports]

    assert told(0) == told(0) != told(1)


def test_shards_that_cannot_be_read_are_a_trial_error(
    trial: Callable[..., Trial], prepared: Prepared, tmp_path: Path
) -> None:
    run = prepared(trial())
    (tmp_path / "broken.arrow").write_bytes(run.shards["test"].read_bytes()[:100])
    broken = run.model_copy(update={"shards": run.shards | {"test": tmp_path / "broken.arrow"}})
    with pytest.raises(TrialError, match=r"broken.arrow is not a tokenised dataset"):
        fine_tune(broken, [].append)
