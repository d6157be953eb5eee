"""Laws of checkpoints across processes: what one process saved two go on from, and what two saved, one."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_checkpoint import BATCH, Told, checkpoints, cut_short, told_until

from showhow.machines.assignment import Assignment
from showhow.machines.layout import Layout
from showhow.sections.trial import Trial

STAGE = 2


def process(number: int, folder: Path, runs: dict[str, tuple[str, int]]) -> None:
    """Be one of two processes that train together: runs by name, each until its so manieth report."""
    torch.set_num_threads(1)
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(number)}
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=number, world_size=2)
    for name, (run, reports) in runs.items():
        told = told_until(Assignment.model_validate_json(run), reports)
        (folder / f"{name}-{number}.json").write_text(json.dumps(told))
    torch.distributed.barrier()


def losses(told: Told) -> list[float]:
    return [one["train_loss"] for one in told]


@pytest.fixture(scope="module")
def run_of(
    trial: Callable[..., Trial], prepared: Callable[..., Assignment], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Assignment]:
    home = tmp_path_factory.mktemp("runs")

    def made(name: str) -> Assignment:
        every = {"every_examples": BATCH, "validation_examples": 2}
        return prepared(trial("long", evaluation=every, max_examples=8 * BATCH), checkpoints=home / name)

    return made


@pytest.fixture(scope="module")
def seen(run_of: Callable[[str], Assignment], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], list]:
    """What each of two processes told and noted of a run: of one that one process began, and of one that they began
    and were cut in."""
    folder = tmp_path_factory.mktemp("processes")
    layout = Layout(devices=2, zero_stage=STAGE, micro_batch_size=BATCH // 2)
    told_until(run_of("begun by one"), 5)
    together = {name: run_of(name).model_copy(update={"layout": layout}) for name in ("begun by one", "begun by two")}
    cut = {"begun by one": 99, "begun by two": 5}
    runs = {name: (run.model_dump_json(), cut[name]) for name, run in together.items()}
    torch.multiprocessing.start_processes(process, (folder, runs), nprocs=2, start_method="spawn")
    return lambda name, number: json.loads((folder / f"{name}-{number}.json").read_text())


@pytest.fixture(scope="module")
def whole(run_of: Callable[[str], Assignment]) -> Told:
    return told_until(run_of("whole").model_copy(update={"checkpoints": None}), 99)[0]


def test_two_processes_go_on_where_one_was_cut(seen: Callable[[str, int], list], whole: Told) -> None:
    for number in (0, 1):
        told, notes = seen("begun by one", number)
        assert notes == [["resumed", 4 * BATCH]]
        assert losses(told) == pytest.approx(losses(whole[3:]), rel=1e-4)
        for name in ("examples", "tokens"):
            assert [one[name] for one in told] == [one[name] for one in whole[3:]]


def test_one_process_goes_on_where_two_were_cut_though_a_file_of_theirs_is_spoilt(
    seen: Callable[[str, int], list], run_of: Callable[[str], Assignment], whole: Told
) -> None:
    told, notes = seen("begun by two", 0)
    assert notes == []
    assert losses(told) == pytest.approx(losses(whole[:5]), rel=1e-4)
    before, last = checkpoints(run_of("begun by two"))
    assert len(list(last.glob("*-00001-of-00002-*"))) == len(list(last.glob("*-00002-of-00002-*"))) == 2
    cut_short(last)
    rest, notes = told_until(run_of("begun by two"), 99)
    assert notes == [("resumed", 3 * BATCH)]
    assert int(before.name) == 3 * BATCH
    assert losses(rest) == pytest.approx(losses(whole[2:]), rel=1e-4)
