"""What a run does when its memory really runs out: the system gives its process no more than a little."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from showhow.bench.fine_tune import fine_tune
from showhow.errors import OutOfMemoryError
from showhow.machines.assignment import Assignment
from showhow.processes.ladder import climb
from showhow.sections.trial import Trial

# What the process may have is limited in addresses (RLIMIT_AS), once all that is imported late has been.
TRAIN = """
import json, resource, sys
from pathlib import Path
from showhow.errors import TrialError
from showhow.bench.fine_tune import fine_tune
from showhow.machines.assignment import Assignment
from showhow.processes.ladder import climb

run, small, megabytes = *map(Assignment.model_validate_json, sys.argv[1:3]), int(sys.argv[3])
fine_tune(small, lambda metrics: None)
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20, -1))
told = {"losses": {}, "notes": [], "grades": None, "failure": None}

def report(metrics):
    told["losses"][metrics["examples"]] = metrics["train_loss"]

def note(*noted):
    told["notes"].append(noted)

def attempt(run):
    told["grades"] = fine_tune(run, report, note).grades

try:
    climb(run, attempt, note)
except TrialError as error:
    told["failure"] = str(error)
print(json.dumps(told))
"""


Told = dict[str, Any]
LARGE = {"hidden_size": 128, "layers": 3, "heads": 4}


@pytest.fixture
def large(trial: Callable[..., Trial], prepared: Callable[..., Assignment]) -> Callable[..., Assignment]:
    """A run of two steps on batches of a size, asked so many questions at once."""

    def made(batch_size: int, questions: int, **size: int) -> Assignment:
        small = trial("long")
        changes = {
            "data": {"train_examples": 600, "eval_examples": questions},
            "task": small.task.model_dump() | {"terms": 6, "below": 10},
            "model": small.model.model_dump() | size,
            "recipe": small.recipe.model_dump() | {"batch_size": batch_size, "max_examples": 2 * batch_size},
            "budget": {"unit": "examples", "amount": 2 * batch_size},
            "evaluation": {"every_examples": batch_size, "validation_examples": 2, "batch_size": 1000},
        }
        return prepared(Trial.model_validate(small.model_dump() | changes))

    return made


@pytest.fixture
def cramped(trial: Callable[..., Trial], prepared: Callable[..., Assignment]) -> Callable[[Assignment, int], Told]:
    """What a run tells in a process of its own that may have so many megabytes more than it takes to begin."""

    def made(run: Assignment, megabytes: int) -> Told:
        small = prepared(trial("long", max_examples=160, evaluation={"every_examples": 160}))
        command = [sys.executable, "-c", TRAIN, run.model_dump_json(), small.model_dump_json(), str(megabytes)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return made


def losses(run: Assignment) -> tuple[dict[str, float], list[bool]]:
    """What a run reports that has all the room that it wants, and its grades."""
    told: list[dict[str, float]] = []
    grades = fine_tune(run, told.append).grades
    return {str(one["examples"]): one["train_loss"] for one in told}, [*grades]


def test_a_run_whose_batch_finds_no_room_goes_on_in_smaller_parts_and_learns_the_same(
    large: Callable[..., Assignment], cramped: Callable[[Assignment, int], Told]
) -> None:
    run = large(512, 12, **LARGE)
    told = cramped(run, 250)
    assert "was micro-batches of 512, is now micro-batches of 256" in told["notes"][0][2]
    assert told["failure"] is None
    assert told["losses"] == pytest.approx(losses(run)[0], rel=1e-4)


def test_questions_that_find_no_room_at_once_are_asked_by_and_by_and_answered_the_same(
    large: Callable[..., Assignment], cramped: Callable[[Assignment, int], Told]
) -> None:
    run = large(4, 1000, **LARGE)
    told = cramped(run, 120)
    kind, examples, text = told["notes"][0]
    assert (kind, examples) == ("adapted", 8)
    assert "replies to 1000 questions at a time" in text
    assert int(text.removeprefix(text.partition("continues with ")[0]).split()[-1]) in (500, 250, 125)
    assert len(told["notes"]) == 1  # what was found of one split holds for the next
    undisturbed, grades = losses(run)
    assert told["losses"] == pytest.approx(undisturbed, rel=1e-6)  # memory decides the last digit
    assert told["grades"] == grades


def test_what_was_learnt_before_memory_ran_out_is_not_learnt_again(
    trial: Callable[..., Trial], prepared: Callable[..., Assignment], tmp_path: Path
) -> None:
    every = {"every_examples": 16, "validation_examples": 2}
    run = prepared(trial("long", evaluation=every, max_examples=80), checkpoints=tmp_path / "checkpoints")
    told: list[float] = []
    notes: list[tuple[str, int, str]] = []

    def report(metrics: dict[str, float]) -> None:
        told.append(metrics["examples"])
        if len(told) == 3:
            raise OutOfMemoryError("out of memory", int(metrics["examples"]))

    def note(kind: str, examples: int, text: str) -> None:
        notes.append((kind, examples, text))

    def attempt(run: Assignment) -> None:
        fine_tune(run, report, note)

    climb(run, attempt, note)
    assert told == [16, 32, 48, 32, 48, 64, 80]
    assert notes == [
        ("adapted", 48, "out of memory; was micro-batches of 16, is now micro-batches of 8"),
        ("resumed", 32, "resumes from the checkpoint after 32 examples"),
    ]


def test_a_run_for_which_there_is_no_room_at_all_is_infeasible(
    large: Callable[..., Assignment], cramped: Callable[[Assignment, int], Told]
) -> None:
    told = cramped(large(4, 12, hidden_size=768, layers=4, heads=8), 180)
    assert told["losses"] == {}
    assert len(told["notes"]) == 3
    assert told["failure"].startswith("infeasible: out of memory ")
    assert "tried: micro-batches of 4; micro-batches of 2; micro-batches of 1; " in told["failure"]
    assert "micro-batches of 1, activations recomputed. More resources.devices_per_trial" in told["failure"]
