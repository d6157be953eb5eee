"""What the recorder makes of the order in which Ray Tune says things."""

from pathlib import Path

import pytest

from showhow.datasets.prepare import Preparation
from showhow.home.folder import StudyFolder
from showhow.home.past_study import PastStudy
from showhow.sections.stopping import Asha
from showhow.study.study import Study
from showhow.sweep.arbiter import Arbiter
from showhow.sweep.proposer import Run
from showhow.sweep.recorder import Recorder, flat_params
from showhow.sweep.replay import Replay
from showhow.tracking.jsonl import JsonlTracker, read_events
from showhow.tracking.runs import StudyRecord, fold
from showhow.tracking.tracker import RunEnded, RunStarted, StageEnded

FINAL = {"examples": 800.0, "tokens": 8000.0, "flops": 1e9, "train_loss": 9.0, "validation/accuracy": 1.0}
OUTCOME = {"outcome": {"reached_goal": True, "grades": "1", "samples": {}}}


@pytest.fixture
def setting(tiny_file: Path, tmp_path: Path) -> tuple[Recorder, Arbiter, Run, Path]:
    study = Study.load(tiny_file)
    arbiter = Arbiter(Asha(kind="asha", min_seeds=1), seeds=2)
    journal = tmp_path / "journal.jsonl"
    preparation = Preparation(tmp_path, lambda _line: None)
    recorder = Recorder(JsonlTracker(journal), Replay(arbiter, StudyRecord()), preparation, "asha")
    return recorder, arbiter, Run(study.trials[1], 0), journal


def ends(journal: Path) -> list[str]:
    return [event.status for event in read_events(journal) if isinstance(event, RunEnded)]


def test_a_run_that_reached_its_goal_is_finished_though_the_rule_would_stop_it(setting) -> None:
    recorder, arbiter, run, journal = setting
    arbiter.stopped.add(run.trial.name)
    recorder.start(run)
    assert not recorder.hear(run, {"metrics": {**FINAL, "test/accuracy": 1.0}})
    recorder.hear(run, OUTCOME)
    assert ends(journal) == ["finished"]


def test_a_run_is_asked_for_nothing_after_its_outcome_or_its_failure(setting) -> None:
    recorder, _, run, journal = setting
    recorder.start(run)
    assert not recorder.hear(run, {"metrics": FINAL})
    assert recorder.hear(run, OUTCOME)
    other = Run(run.trial, 1)
    recorder.start(other)
    assert recorder.hear(other, {"failure": "the loss is not a number"})
    assert ends(journal) == ["finished", "failed"]


def test_a_run_of_a_stopped_trial_is_stopped_at_its_next_report(setting) -> None:
    recorder, arbiter, run, journal = setting
    arbiter.stopped.add(run.trial.name)
    recorder.start(run)
    assert recorder.hear(run, {"metrics": FINAL})
    assert ends(journal) == ["stopped"]


def test_a_process_that_comes_back_after_its_outcome_does_not_undo_it(setting) -> None:
    recorder, _, run, journal = setting
    recorder.start(run)
    recorder.hear(run, {"metrics": {**FINAL, "test/accuracy": 1.0}})
    recorder.hear(run, OUTCOME)
    recorder.start(run)
    assert sum(isinstance(event, RunStarted) for event in read_events(journal)) == 1
    assert ends(journal) == ["finished"]


def test_a_run_whose_process_never_came_up_is_told_with_a_start_and_an_end(setting) -> None:
    recorder, _, run, journal = setting
    recorder.end(run, "failed", reason="the process died")
    kinds = [type(event).__name__ for event in read_events(journal)]
    assert kinds == ["RunStarted", "RunEnded"]
    assert ends(journal) == ["failed"]


def test_a_stage_is_recorded_with_its_cost_and_the_run_continues(setting) -> None:
    recorder, _, run, journal = setting
    recorder.start(run)
    cost = {"examples": 0, "tokens": 1200, "flops": 3e9, "seconds": 2.5}
    assert not recorder.hear(run, {"stage": {"operation": "reply", "address": "ab12", "is_reused": True, **cost}})
    (stage,) = [event for event in read_events(journal) if isinstance(event, StageEnded)]
    assert (stage.run, stage.operation, stage.address, stage.is_reused) == (run.key, "reply", "ab12", True)
    assert (stage.examples, stage.tokens, stage.flops, stage.seconds) == (0, 1200, 3e9, 2.5)


def test_attempts_are_counted_over_sessions(setting, tmp_path: Path) -> None:
    recorder, arbiter, run, journal = setting
    recorder.start(run)
    recorder.interrupt()
    preparation = Preparation(tmp_path, lambda _line: None)
    later = Recorder(
        JsonlTracker(tmp_path / "later.jsonl"), Replay(arbiter, fold(read_events(journal))), preparation, "asha"
    )
    later.start(run)
    assert not later.has_ended(run)
    (start,) = read_events(tmp_path / "later.jsonl")
    assert start.attempt == 2


def test_a_point_stands_among_the_params_also_where_an_axis_names_a_variant(setting) -> None:
    _, _, run, _ = setting
    plain = flat_params(run.trial, 0)
    assert plain == flat_params(run.trial.model_copy(update={"point": {}}), 0)
    variant = run.trial.model_copy(update={"point": {**run.trial.point, "method": "mixup"}})
    assert flat_params(variant, 0) == plain | {"method": "mixup"}


def test_a_trial_is_rebuilt_from_what_its_run_recorded_whatever_is_searched(tiny_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "axes.toml"
    axes = 'samples = 2\nlearning_rate = { log_uniform = [1e-4, 1e-2] }\n"model.layers" = { grid = [1, 2] }\n'
    axes += 'method = { grid = ["plain", "mixup"] }\n"method.mixup.alpha" = { grid = [0.3, 0.7] }\n'
    text = tiny_file.read_text().replace("\nlayers = 1", "").replace("learning_rate = 3e-3\n", "")
    path.write_text(text.replace("[search]\n", f"[search]\n{axes}") + '\n[method.mixup]\nkind = "sftmix"\n')
    study = Study.load(path)
    folder = StudyFolder(tmp_path, study.name)
    folder.make()
    folder.claim(study)
    journal = JsonlTracker(folder.journal)
    recorder = Recorder(
        journal, Replay(Arbiter(study.stop, 2), StudyRecord()), Preparation(tmp_path, lambda _line: None), "none"
    )
    runs = [Run(trial, seed) for trial in study.trials for seed in study.seeds]
    for run in runs:
        recorder.start(run)
        recorder.hear(run, {"metrics": FINAL})
        recorder.hear(run, OUTCOME)
        weights = folder.checkpoints / run.key / "000000000800"
        weights.mkdir(parents=True)
        (weights / "manifest.json").touch()
    journal.close()
    past = PastStudy(folder)
    assert {run.key: past.trial(past.run(run.key)) for run in runs} == {run.key: run.trial for run in runs}
