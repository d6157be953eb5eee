"""The learning curves on which stop rules are judged are whole, and replaying them keeps to what a study does."""

from itertools import pairwise

import pytest
from benchmarks.learning_curves import CHOSEN_ON, HELD_OUT, RECORDINGS, Recording, missing_runs, read_curves
from benchmarks.replays import SEEDS, draw, read_pool, replay
from benchmarks.stopping import ASHA, GOAL_ALONE, WITHOUT

from showhow.study.study import Study

BY_NAME = {"argnames": "recording", "argvalues": RECORDINGS, "ids": lambda recording: recording.name}


@pytest.mark.parametrize(**BY_NAME)
def test_every_run_of_the_study_is_recorded_once_to_its_end(recording: Recording) -> None:
    study, curves = Study.load(recording.study), read_curves(recording)
    assert missing_runs(recording) == []
    assert len({(curve.trial, curve.seed) for curve in curves}) == len(curves)
    assert {curve.examples[-1] for curve in curves} == {trial.recipe.max_examples for trial in study.trials}
    rates = {(trial.name, trial.recipe.learning_rate, trial.recipe.batch_size) for trial in study.trials}
    assert {(curve.trial, curve.learning_rate, curve.batch_size) for curve in curves} == rates


@pytest.mark.parametrize(**BY_NAME)
def test_all_curves_of_a_pool_have_the_same_reports(recording: Recording) -> None:
    curves = read_curves(recording)
    assert len({curve.examples for curve in curves}) == 1
    (first, *_) = curves[0].examples
    assert {later - earlier for earlier, later in pairwise(curves[0].examples)} == {first}
    assert {(len(curve.train_loss), len(curve.accuracy)) for curve in curves} == {(len(curves[0].examples),) * 2}


def test_the_held_out_pool_is_of_another_task() -> None:
    assert Study.load(HELD_OUT.study).task.kind != Study.load(CHOSEN_ON.study).task.kind


@pytest.mark.parametrize(**BY_NAME)
def test_a_replay_without_a_rule_spends_all_and_with_one_less_and_every_level_is_answered(recording: Recording) -> None:
    pool = read_pool(recording)
    whole, to_goal, stopped = (replay(draw(pool, 6, 1.0, 0), rule) for rule in (WITHOUT, GOAL_ALONE, ASHA))
    assert whole.spent == 1.0
    assert stopped.spent < to_goal.spent <= 1.0
    assert all(len(row.accuracies) == SEEDS for row in stopped.result.rows)
