"""Laws of what a study's folder tells in Python: the same result as the command's, a row a run, also while it runs."""

from pathlib import Path

import pytest
from studies import load

import showhow
from showhow.errors import UserError
from showhow.home.folder import StudyFolder
from showhow.home.results import final_metrics, write_result
from showhow.tracking.jsonl import JsonlTracker
from showhow.tracking.tracker import Event, Reported, RunEnded, RunStarted, StudyStarted

RIGHT = {"none": "1" + "0" * 39, "long": "1" * 39 + "0"}


def run(level: str, seed: int, has_ended: bool = True) -> list[Event]:
    key, accuracy = f"trial-{level}/seed-{seed}", RIGHT[level].count("1") / 40
    metrics = {"examples": 320.0, "tokens": 7040.0, "flops": 1.5e9, "train_seconds": 2.0, "eval_seconds": 0.5}
    metrics |= {"validation/accuracy": accuracy, "longer/accuracy": 0.25, "train_loss": 0.1}
    datasets = {"test": {"chance": 0.1, "majority_share": 0.12}}
    params = {"explanation": level, "seed": seed, "max_examples": 1600, "learning_rate": 1e-3}
    started = RunStarted(key, f"trial-{level}", seed, level, params, datasets, 1, 1.0, level=level, budget=1600.0)
    ended = RunEnded(key, "finished", None, None, {"grades": RIGHT[level]}, 3.0)
    return [started, Reported(key, 320, metrics, 2.0), *([ended] if has_ended else [])]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study of which seven runs have ended and one is under way."""
    folder = StudyFolder(tmp_path, "small")
    folder.make()
    folder.claim(load(tmp_path))
    tracker = JsonlTracker(folder.journal)
    tracker.record(StudyStarted("small", "How much?", {}, {}, 0.0))
    for level in ("long", "none"):
        for seed in range(4):
            for event in run(level, seed, has_ended=(level, seed) != ("none", 3)):
                tracker.record(event)
    tracker.close()
    return folder


def test_a_frame_has_a_row_a_run_with_what_it_reached_and_spent(folder: StudyFolder) -> None:
    frame = showhow.results("small", folder.home).frame()
    assert list(frame.columns) == [
        *("arm", "explanation", "learning_rate", "trial", "seed", "status", "level", "validation/accuracy"),
        *("test/accuracy", "longer/accuracy", "examples", "tokens", "flops", "seconds", "stopped_by", "reason"),
    ]
    assert frame["status"].tolist() == ["finished"] * 7 + ["unfinished"]
    first = frame.iloc[0]
    assert (first["arm"], first["explanation"], first["trial"], first["seed"]) == ("long", "long", "trial-long", 0)
    assert (first["test/accuracy"], first["longer/accuracy"]) == (39 / 40, 0.25)
    assert (first["examples"], first["tokens"], first["flops"], first["seconds"]) == (320, 7040.0, 1.5e9, 2.5)
    assert frame["test/accuracy"].isna().tolist() == [False] * 7 + [True]


def test_the_verdict_on_a_studys_answers_is_the_studys_own(folder: StudyFolder) -> None:
    found = showhow.results("small", folder.home)
    judged = showhow.verdict(found.answers(), found.result.chance, found.result.baseline)
    ended = [row.model_copy(update={"values": {}, "params": {}}) for row in found.result.rows]
    for row, own in zip(judged.rows, ended, strict=True):
        if own.accuracy is not None:
            assert (row.arm, row.trial, row.accuracy, row.solved) == (own.arm, own.trial, own.accuracy, own.solved)
    assert [row.arm for row in judged.rows] == ["none", "long"]
    assert len(found.answers()) == 7 * 40


def test_a_result_is_there_while_the_study_runs_and_is_what_is_written(folder: StudyFolder) -> None:
    found = showhow.results("small", folder.home)
    assert not found.is_over
    assert found.result.row("none").interrupted == 1
    assert found.result.row("long").solved == 4
    assert write_result(folder) == found.result
    assert showhow.StudyResult.model_validate_json(folder.results.read_bytes()) == found.result
    assert folder.picture.stat().st_size > 10_000
    assert final_metrics(found.result) == {"long/test/accuracy": pytest.approx(39 / 40)}


def test_a_study_of_which_nothing_has_started_has_empty_tables(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "small")
    folder.make()
    folder.claim(load(tmp_path))
    tracker = JsonlTracker(folder.journal)
    tracker.record(StudyStarted("small", "How much?", {}, {}, 0.0))
    tracker.close()
    found = showhow.results("small", tmp_path)
    assert (len(found.frame()), len(found.answers()), found.result.rows) == (0, 0, ())
    with pytest.raises(UserError, match="has no rows"):
        showhow.verdict(found.answers())


def test_an_unknown_study_is_answered_with_the_nearest_name(folder: StudyFolder) -> None:
    with pytest.raises(UserError, match='Did you mean "small"'):
        showhow.results("smal", folder.home)
