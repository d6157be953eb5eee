"""Learning curves recorded once, so that stop rules can be compared over many studies without training.

It owns the recording (every point of a study with every seed, its whole budget, one run after another in this process)
and the reading. A run is one line of JSON; recording goes on after the last.
"""

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from showhow.datasets.prepare import Preparation
from showhow.machines.assignment import Assignment
from showhow.machines.fitting import layout_of
from showhow.metrics import TEST, VALIDATION, on_split
from showhow.sections.resources import Resources, Sharding
from showhow.sections.trial import Trial
from showhow.study.study import Study

SEEDS = range(4)


@dataclass(frozen=True)
class Recording:
    """A study whose every run was trained to its end. curves: the file of its runs; guessing: how often the commonest
    answer is right on its test questions."""

    name: str
    study: Path
    curves: Path
    guessing: float


# The defaults of `[stop]` were chosen on the first; the second is of another task, and nothing was ever chosen on it.
CHOSEN_ON = Recording(
    "modular_sum",
    Path("search_spaces/learning_rate.toml"),
    Path(__file__).with_name("learning_curves.jsonl"),
    guessing=0.1,
)
HELD_OUT = Recording(
    "listops, held out",
    Path("search_spaces/listops_tiny.toml"),
    Path(__file__).with_name("held_out_curves.jsonl"),
    guessing=0.31,
)
RECORDINGS = (CHOSEN_ON, HELD_OUT)


@dataclass(frozen=True)
class Curve:
    """One whole run. examples, train_loss (nats per target token, mean since the last report) and accuracy (on
    validation) are per report; test_accuracy is taken at the end of the budget. batch_size: 16 where it is not
    searched."""

    level: str
    trial: str
    learning_rate: float
    seed: int
    examples: tuple[int, ...]
    train_loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    test_accuracy: float
    batch_size: int = 16


def read_curves(recording: Recording) -> list[Curve]:
    """Return what was recorded so far."""
    if not recording.curves.exists():
        return []
    reader = TypeAdapter(Curve)
    return [reader.validate_json(line) for line in recording.curves.read_text(encoding="utf-8").splitlines()]


def missing_runs(recording: Recording) -> list[tuple[Trial, int]]:
    """Return the trials and seeds that are not recorded yet, seed by seed, the longest explanations first."""
    done = {(curve.trial, curve.seed) for curve in read_curves(recording)}
    study = Study.load(recording.study)
    return [
        (trial, seed)
        for seed in SEEDS
        for level in reversed(study.levels)
        for trial in study.trials
        if trial.level == level and (trial.name, seed) not in done
    ]


def record(recording: Recording, seconds: float) -> int:
    """Train and append runs that are missing until `seconds` are over; return how many are missing still."""
    from showhow.training.threads import use_threads  # loads torch, for which those who only read must not wait

    missing = missing_runs(recording)
    use_threads(1)
    with tempfile.TemporaryDirectory() as home:
        preparation = Preparation(Path(home), lambda _line: None)
        started = time.monotonic()
        while missing and time.monotonic() - started < seconds:
            trial, seed = missing.pop(0)
            line = json.dumps(asdict(_run(trial, seed, preparation)))
            with recording.curves.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    return len(missing)


def _run(trial: Trial, seed: int, preparation: Preparation) -> Curve:
    from showhow.bench.fine_tune import fine_tune

    ready = preparation.of(trial)
    reports: list[dict[str, float]] = []
    run = Assignment(
        trial=trial,
        seed=seed,
        shards={split: Path(path) for split, path in ready.shards.items()},
        tokenizer=Path(ready.tokenizer),
        goal_accuracy=None,
        layout=layout_of(trial, Resources(), Sharding()),
    )
    fine_tune(run, reports.append)
    return Curve(
        level=trial.level.value,
        trial=trial.name,
        learning_rate=trial.recipe.learning_rate,
        seed=seed,
        examples=tuple(int(report["examples"]) for report in reports),
        train_loss=tuple(round(report["train_loss"], 4) for report in reports),
        accuracy=tuple(report[on_split(VALIDATION, "accuracy")] for report in reports),
        test_accuracy=reports[-1][on_split(TEST, "accuracy")],
        batch_size=trial.recipe.batch_size,
    )
