"""Laws of checkpoints: a run that is cut goes on as if it had not been, whatever was being written when it was cut."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from showhow.bench.fine_tune import Outcome, fine_tune
from showhow.errors import TrialError
from showhow.machines.assignment import Assignment
from showhow.sections.adapter import Lora
from showhow.sections.recipe import PretrainedModel
from showhow.sections.trial import Trial
from showhow.training.checkpoints.files import read_weights

Told = list[dict[str, float]]
BATCH = 16


class Cut(BaseException):
    """The process ends, whatever it is doing."""


@pytest.fixture
def run(trial: Callable[..., Trial], prepared: Callable[..., Assignment], tmp_path: Path) -> Callable[..., Assignment]:
    def made(architecture: str = "llama", **changes: object) -> Assignment:
        # A report after each batch, so that each loss is one step's.
        small = trial("long", architecture, {"every_examples": BATCH, "validation_examples": 2}, max_examples=8 * BATCH)
        return prepared(small, checkpoints=tmp_path / "checkpoints", **changes)

    return made


def told_until(run: Assignment, reports: int) -> tuple[Told, list[tuple[str, int]]]:
    """What a run tells that is cut at its so manieth report, and its notes."""
    told: Told = []
    notes: list[tuple[str, int]] = []

    def report(metrics: dict[str, float]) -> None:
        told.append(metrics)
        if len(told) == reports:
            raise Cut

    with contextlib.suppress(Cut):
        fine_tune(run, report, lambda kind, examples, _text: notes.append((kind, examples)))
    return told, notes


def without_times(told: Told) -> Told:
    return [{name: value for name, value in one.items() if "second" not in name} for one in told]


@pytest.fixture
def whole(run: Callable[..., Assignment]) -> Callable[[str], Told]:
    def made(architecture: str) -> Told:
        return told_until(run(architecture).model_copy(update={"checkpoints": None}), 99)[0]

    return made


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_run_that_is_cut_goes_on_to_the_bit_as_if_it_had_not_been(
    architecture: str, run: Callable[..., Assignment], whole: Callable[[str], Told]
) -> None:
    before, _ = told_until(run(architecture), 5)
    after, notes = told_until(run(architecture), 99)
    assert notes == [("resumed", 4 * BATCH)]  # it was cut while it reported, before it could save
    assert without_times(before[:3] + after) == without_times(whole(architecture))
    assert after[0] == before[3], "what may not have been heard is said again"
    assert before[3]["train_seconds"] < after[1]["train_seconds"]
    assert before[3]["eval_seconds"] < after[1]["eval_seconds"]


@pytest.mark.parametrize("adapter", [None, Lora(kind="lora", rank=2, dropout=0.2)], ids=["whole", "adapter"])
def test_dropout_leaves_out_the_same_after_a_cut(
    adapter: Lora | None, run: Callable[..., Assignment], tmp_path: Path
) -> None:
    config = T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.2,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    model = PretrainedModel(kind="pretrained", name=str(tmp_path / "model"))
    small = run()
    dropping = small.model_copy(update={"trial": small.trial.model_copy(update={"model": model, "adapter": adapter})})
    undisturbed, _ = told_until(dropping.model_copy(update={"checkpoints": None}), 99)
    before, _ = told_until(dropping, 5)
    after, notes = told_until(dropping, 99)
    assert notes == [("resumed", 4 * BATCH)]
    assert without_times(before[:3] + after) == without_times(undisturbed)
    weights = read_weights(tmp_path / "checkpoints")
    assert weights is not None
    assert all("lora" in name for name in weights) == (adapter is not None)


def test_a_run_may_be_cut_again_and_again(run: Callable[..., Assignment], whole: Callable[[str], Told]) -> None:
    told = {one["examples"]: one for cut in (3, 2, 4) for one in told_until(run(), cut)[0]}
    told |= {one["examples"]: one for one in told_until(run(), 99)[0]}
    assert without_times([told[examples] for examples in sorted(told)]) == without_times(whole("llama"))


def checkpoints(run: Assignment) -> list[Path]:
    assert run.checkpoints is not None
    return sorted(run.checkpoints.iterdir())


def cut_short(checkpoint: Path) -> None:
    file = next(checkpoint.glob("optimizer-*"))
    file.write_bytes(file.read_bytes()[:-1])


def change_a_bit(checkpoint: Path) -> None:
    file = next(checkpoint.glob("weights-*"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def lose_a_file(checkpoint: Path) -> None:
    next(checkpoint.glob("weights-*")).unlink()


def garble_the_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").write_text('{"files": [')


def never_finish(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def name_a_file_elsewhere(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][0]["name"] = f"../{checkpoint.name}/{manifest['files'][0]['name']}"
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "spoil", [cut_short, change_a_bit, lose_a_file, garble_the_manifest, never_finish, name_a_file_elsewhere]
)
def test_a_spoilt_checkpoint_gives_way_to_the_one_before(
    spoil: Callable[[Path], None], run: Callable[..., Assignment], whole: Callable[[str], Told]
) -> None:
    before, _ = told_until(run(), 5)
    kept = checkpoints(run())
    assert [int(folder.name) for folder in kept] == [3 * BATCH, 4 * BATCH]  # the latest two
    spoil(kept[-1])
    after, notes = told_until(run(), 99)
    assert notes == [("resumed", 3 * BATCH)]
    assert without_times(before[:2] + after) == without_times(whole("llama"))


def test_a_run_with_no_whole_checkpoint_begins_anew(
    run: Callable[..., Assignment], whole: Callable[[str], Told]
) -> None:
    told_until(run(), 3)
    for folder in checkpoints(run()):
        change_a_bit(folder)
    told, notes = told_until(run(), 99)
    assert notes == []
    assert without_times(told) == without_times(whole("llama"))


def test_another_seeds_checkpoint_is_not_gone_on_from(run: Callable[..., Assignment]) -> None:
    told_until(run(), 3)
    assert told_until(run(seed=1), 2)[1] == []


def test_the_weights_at_the_end_are_those_that_were_trained(run: Callable[..., Assignment]) -> None:
    told_until(run(), 99)
    told_until(run(), 99)  # a run whose end nobody heard of: the same again
    *_, last = checkpoints(run())
    assert int(last.name) == 8 * BATCH
    assert not list(last.glob("optimizer-*"))
    assert not list(last.glob("*.partial"))
    weights = read_weights(last.parent)
    assert weights is not None
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all("weight" in name and not name.startswith("weight/") for name in weights)
    change_a_bit(last)
    cut = read_weights(last.parent)  # of the last state before
    assert cut is not None
    assert cut.keys() == weights.keys()
    assert any(not torch.equal(cut[name], weights[name]) for name in weights)


def test_a_run_that_keeps_nothing_writes_nothing(run: Callable[..., Assignment], tmp_path: Path) -> None:
    told_until(run(save_every_seconds=3600.0, keep_weights=False), 99)
    assert not (tmp_path / "checkpoints").exists()
    assert read_weights(tmp_path / "checkpoints") is None


def test_a_disk_that_cannot_be_written_is_an_error_of_the_run(run: Callable[..., Assignment], tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises((OSError, TrialError)):
        fine_tune(run(), [].append)


TRAIN = """
import sys
from showhow.bench.fine_tune import fine_tune
from showhow.machines.assignment import Assignment

fine_tune(Assignment.model_validate_json(sys.argv[1]), lambda metrics: print(metrics["examples"], flush=True))
"""


def test_a_process_killed_at_any_moment_loses_no_more_than_since_its_last_checkpoint(
    trial: Callable[..., Trial], prepared: Callable[..., Assignment], tmp_path: Path
) -> None:
    every = {"every_examples": BATCH, "validation_examples": 1}
    long = trial("none", evaluation=every, max_examples=2000 * BATCH)
    run = prepared(long, checkpoints=tmp_path / "checkpoints")
    heard, rng = 0, random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, run.model_dump_json()], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        first, *others = (float(process.stdout.readline()) for _ in range(5))
        assert first > heard - 3 * BATCH  # two that may be under way, and the one that was reported last
        time.sleep(rng.uniform(0.0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        heard = int(max(*others, *map(float, process.stdout.read().split()), 0.0))
        process.wait()
        assert heard > first


def test_what_fine_tune_returns_is_that_of_an_undisturbed_run(run: Callable[..., Assignment]) -> None:
    undisturbed: Outcome = fine_tune(run().model_copy(update={"checkpoints": None}), [].append)
    told_until(run(), 4)
    assert fine_tune(run(), [].append) == undisturbed
