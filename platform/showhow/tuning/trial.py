"""What runs inside a trial's process: one fine-tuning, with its reports handed to Ray Tune.

The process is warm: Ray keeps it and gives it the next run, so torch and transformers are imported once.
"""

import json
import os
from typing import Any

from ray import tune
from showhow.errors import TrialError
from showhow.study.assignment import Assignment

# What a run says to the driver travels as JSON text under one name, because Ray Tune flattens nested results. It is an
# object with one of these keys.
MESSAGE = "message"
METRICS, OUTCOME, FAILURE = "metrics", "outcome", "failure"


def configuration(run: Assignment) -> dict[str, str]:
    """Return a run as plain JSON, the form in which Ray sends it to a process."""
    return {"assignment": run.model_dump_json()}


def run_trial(config: dict[str, Any]) -> None:
    """Run one trial with one seed. A TrialError is reported with its reason and ends the run; it is no fault of the
    process."""
    from showhow.methods import sft  # loads torch; the driver, which imports this file, must not wait for that
    from showhow.training.threads import use_threads

    use_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    run = Assignment.model_validate_json(config["assignment"])
    try:
        outcome = sft.fine_tune(run, lambda metrics: _say(METRICS, metrics))
    except TrialError as error:
        _say(FAILURE, str(error))
        return
    except (OSError, MemoryError) as error:  # another process would fare no better
        _say(FAILURE, f"{type(error).__name__}: {error}")
        return
    grades = "".join("1" if right else "0" for right in outcome.grades)
    _say(OUTCOME, {"reached_goal": outcome.reached_goal, "grades": grades, "samples": outcome.samples})


def _say(kind: str, content: Any) -> None:
    tune.report({MESSAGE: json.dumps({kind: content})})
