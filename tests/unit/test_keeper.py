"""Laws of the keeper: what is kept of a study's checkpoints, and that it deletes nothing else."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from showhow.home.retention import Keeper
from showhow.sections.resources import Checkpoints
from showhow.tracking.tracker import Event, Reported, RunEnded, RunStarted, RunStatus

KILOBYTE = 1e-6  # of the gigabytes that a budget is stated in


def saved(folder: Path, run: str, *examples: int) -> None:
    """What a run wrote: a kilobyte after so many examples each time."""
    for seen in examples:
        checkpoint = folder / run / f"{seen:012}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "weights.safetensors").write_bytes(bytes(1000))


def started(run: str, level: str = "long") -> RunStarted:
    trial, _, seed = run.partition("/seed-")
    return RunStarted(run, trial, int(seed), level, {"max_examples": 800}, {}, 1, 0.0)


def reported(run: str, accuracy: float, loss: float = 1.0, solved_at: float | None = None) -> Reported:
    metrics = {"validation/accuracy": accuracy, "train_loss": loss}
    return Reported(run, 800, metrics | ({"examples_until_solved": solved_at} if solved_at else {}), 0.0)


def ended(run: str, status: RunStatus = "finished") -> RunEnded:
    return RunEnded(run, status, None, None, {}, 0.0)


def kept(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("*/*") if any(path.iterdir())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def told(keeper: Keeper, *events: Event) -> None:
    for event in events:
        keeper.record(event)


Finish = Callable[..., None]


@pytest.fixture
def finish(folder: Path) -> Finish:
    def made(keeper: Keeper, run: str, accuracy: float, level: str = "long", **measured: float | None) -> None:
        saved(folder, run, 400, 800)
        told(keeper, started(run, level), reported(run, accuracy, **measured), ended(run))

    return made


def test_the_best_finished_runs_keep_their_last_checkpoint(folder: Path, finish: Finish) -> None:
    keeper = Keeper(folder, Checkpoints(keep_best=2))
    for number, accuracy in enumerate((0.3, 0.9, 0.1, 0.8)):
        finish(keeper, f"trial-{number}/seed-0", accuracy)
    assert kept(folder) == {"trial-1/seed-0", "trial-3/seed-0"}
    assert [path.name for path in (folder / "trial-1/seed-0").iterdir()] == ["000000000800"]


def test_equally_accurate_runs_are_ranked_by_how_soon_they_solved_the_task_then_by_their_loss(
    folder: Path, finish: Finish
) -> None:
    keeper = Keeper(folder, Checkpoints(keep_best=1))
    for number, measured in enumerate(
        ({}, {"solved_at": 600.0}, {"solved_at": 400.0}, {"solved_at": 400.0, "loss": 0.5})
    ):
        finish(keeper, f"trial-{number}/seed-0", 1.0, **measured)
    assert kept(folder) == {"trial-3/seed-0"}


def test_each_level_keeps_the_best_run_of_its_leading_trial(folder: Path, finish: Finish) -> None:
    keeper = Keeper(folder, Checkpoints(keep_best=1))
    finish(keeper, "trial-0/seed-0", 1.0, "long")
    finish(keeper, "trial-1/seed-0", 0.2, "none")
    finish(keeper, "trial-2/seed-0", 0.1, "none")
    finish(keeper, "trial-3/seed-0", 0.9, "long")
    finish(keeper, "trial-3/seed-1", 0.8, "long")  # two seeds tell more than one lucky one
    assert kept(folder) == {"trial-0/seed-0", "trial-1/seed-0", "trial-3/seed-1"}


def test_an_arm_keeps_a_run_in_each_setting(folder: Path) -> None:
    keeper = Keeper(folder, Checkpoints(keep_best=1))
    for number, (layers, accuracy) in enumerate([(4, 0.9), (4, 0.8), (1, 0.3), (1, 0.2)]):
        run = f"trial-{number}/seed-0"
        saved(folder, run, 400, 800)
        told(keeper, replace(started(run), setting={"model.layers": layers}), reported(run, accuracy), ended(run))
    assert kept(folder) == {"trial-0/seed-0", "trial-2/seed-0"}


def test_nothing_is_kept_of_stopped_runs_and_the_state_of_those_that_may_go_on(folder: Path) -> None:
    keeper = Keeper(folder, Checkpoints())
    for status in ("stopped", "failed", "interrupted"):
        run = f"trial-{status}/seed-0"
        saved(folder, run, 400)
        told(keeper, started(run), reported(run, 0.5), ended(run, status))
    saved(folder, "trial-running/seed-0", 400)
    told(keeper, started("trial-running/seed-0"), reported("trial-running/seed-0", 0.5))
    assert kept(folder) == {"trial-failed/seed-0", "trial-interrupted/seed-0", "trial-running/seed-0"}


def test_no_run_keeps_weights_where_none_is_to(folder: Path, finish: Finish) -> None:
    finish(Keeper(folder, Checkpoints(keep_best=0)), "trial-0/seed-0", 1.0)
    assert kept(folder) == set()


def test_what_earlier_sessions_left_counts(folder: Path, finish: Finish) -> None:
    finish(Keeper(folder, Checkpoints(keep_best=1)), "trial-0/seed-0", 0.9)
    past = [started("trial-0/seed-0"), reported("trial-0/seed-0", 0.9), ended("trial-0/seed-0")]
    saved(folder, "trial-1/seed-0", 400)  # of a run stopped while its process was still writing
    stopped = [started("trial-1/seed-0"), ended("trial-1/seed-0", "stopped")]
    keeper = Keeper(folder, Checkpoints(keep_best=1), [*past, *stopped])
    assert kept(folder) == {"trial-0/seed-0"}
    finish(keeper, "trial-2/seed-0", 0.5)
    assert kept(folder) == {"trial-0/seed-0"}


def test_the_budget_takes_the_worst_first_and_never_the_best_nor_what_is_under_way(
    folder: Path, finish: Finish, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper(folder, Checkpoints(keep_best=3, budget_gb=2.5 * KILOBYTE))
    finish(keeper, "trial-0/seed-0", 0.5)
    finish(keeper, "trial-1/seed-0", 0.9)
    finish(keeper, "trial-2/seed-0", 0.7)
    assert kept(folder) == {"trial-1/seed-0", "trial-2/seed-0"}
    saved(folder, "trial-3/seed-0", 400)
    told(keeper, started("trial-3/seed-0"), ended("trial-3/seed-0", "failed"))
    assert kept(folder) == {"trial-1/seed-0", "trial-3/seed-0"}
    with caplog.at_level(logging.WARNING, "showhow"):
        for number in (4, 5):
            saved(folder, f"trial-{number}/seed-0", 400, 800)
            told(keeper, started(f"trial-{number}/seed-0"), reported(f"trial-{number}/seed-0", 0.1))
        finish(keeper, "trial-6/seed-0", 0.6)
        finish(keeper, "trial-7/seed-0", 0.6)
    assert kept(folder) == {"trial-1/seed-0", "trial-4/seed-0", "trial-5/seed-0"}
    (record,) = caplog.records
    assert "checkpoints.budget_gb" in record.getMessage()


@pytest.mark.parametrize("key", ["../outside", "trial/../../outside", "/{outside}", "", "."])
def test_a_journal_that_names_a_folder_elsewhere_deletes_nothing_there(folder: Path, key: str) -> None:
    outside = folder.parent / "outside"
    saved(outside.parent, "outside", 400)
    saved(folder, "trial-0/seed-0", 400)
    run = key.format(outside=str(outside)[1:])
    keeper = Keeper(folder, Checkpoints(keep_best=0))
    start = RunStarted(run, "trial-9", 0, "long", {"max_examples": 800}, {}, 1, 0.0)
    told(keeper, start, ended(run, "stopped"))
    assert any(outside.iterdir())
    assert kept(folder) == {"trial-0/seed-0"}


def test_a_link_to_elsewhere_is_not_followed(folder: Path) -> None:
    saved(folder.parent, "outside", 400)
    (folder / "trial-0").symlink_to(folder.parent / "outside")
    keeper = Keeper(folder, Checkpoints())
    run = "trial-0/000000000400"
    told(keeper, RunStarted(run, "trial-0", 0, "long", {}, {}, 1, 0.0), ended(run, "stopped"))
    assert (folder.parent / "outside" / "000000000400" / "weights.safetensors").exists()
