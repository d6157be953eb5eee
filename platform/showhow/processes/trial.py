"""Runs one fine-tuning inside a trial's process, with its reports sent to Ray Tune.

Ray reuses the process for the next run, so torch and transformers are imported once.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from ray import tune
from showhow.errors import TrialError
from showhow.machines.assignment import Assignment
from showhow.methods.bench import Spent
from showhow.processes.ladder import climb
from showhow.sections.resources import Resources

# A run's messages to the driver are JSON text under one name, because Ray Tune flattens nested results. Each is an
# object with one of these keys. A note is an object of kind, examples and text; a stage one of operation, address,
# is_reused, examples, tokens, flops and seconds (see tracker.StageEnded).
MESSAGE = "message"
METRICS, NOTE, STAGE, OUTCOME, FAILURE = "metrics", "note", "stage", "outcome", "failure"

Say = Callable[[str, Any], None]  # takes the kind of a message and its content

_ASSIGNMENT, _RESOURCES = "assignment", "resources"


def configuration(run: Assignment, resources: Resources) -> dict[str, str]:
    """Return a run as plain JSON, the form in which Ray sends it to a process."""
    return {_ASSIGNMENT: run.model_dump_json(), _RESOURCES: resources.model_dump_json()}


def assignment(config: dict[str, Any]) -> Assignment:
    """Return the run in a configuration."""
    return Assignment.model_validate_json(config[_ASSIGNMENT])


def resources(config: dict[str, Any]) -> Resources:
    """Return the resources of each of the run's devices."""
    return Resources.model_validate_json(config[_RESOURCES])


def run_trial(config: dict[str, Any]) -> None:
    """Run one trial with one seed in this process."""
    from showhow.training.threads import use_threads  # loads torch, as below

    use_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    carry_out(assignment(config), lambda run: fine_tune(run, say_here))


def carry_out(run: Assignment, attempt: Callable[[Assignment], None]) -> None:
    """Attempt a run, with another layout when it is out of memory. A TrialError is reported with its reason and ends
    the run; it is not a fault of the process."""
    try:
        climb(run, attempt, partial(say_note, say_here))
    except TrialError as error:
        say_here(FAILURE, str(error))
    except (OSError, MemoryError) as error:  # it would fail in another process too
        say_here(FAILURE, f"{type(error).__name__}: {error}")


def fine_tune(run: Assignment, say: Say) -> None:
    """Carry out a run, and send its messages and its outcome."""
    # Loads torch, which the driver, which imports this file, does not need.
    from showhow.bench import fine_tune as bench

    outcome = bench.fine_tune(run, partial(say, METRICS), partial(say_note, say), partial(_say_stage, say))
    grades = "".join("1" if right else "0" for right in outcome.grades)
    say(OUTCOME, {"reached_goal": outcome.reached_goal, "grades": grades, "samples": outcome.samples})


def _say_stage(say: Say, operation: str, address: str, is_reused: bool, spent: Spent, seconds: float) -> None:
    """Send that a run has used a stage (see tracker.StageEnded)."""
    cost = {"examples": spent.examples, "tokens": spent.tokens, "flops": spent.flops, "seconds": seconds}
    say(STAGE, {"operation": operation, "address": address, "is_reused": is_reused, **cost})


def tell(message: str) -> None:
    """Send a message made by `in_json` to Ray Tune, and return when the driver has decided what to do."""
    tune.report({MESSAGE: message})


def in_json(kind: str, content: Any) -> str:
    """Return a message as text."""
    return json.dumps({kind: content})


def say_note(say: Say, kind: str, examples: int, text: str) -> None:
    """Send a note on a run (see tracker.RunNoted)."""
    say(NOTE, {"kind": kind, "examples": examples, "text": text})


def say_here(kind: str, content: Any) -> None:
    """Send a message from the trial's own process."""
    tell(in_json(kind, content))
