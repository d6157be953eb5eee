"""Learning curves recorded once, so that stop rules can be compared over many studies without training.

It owns the recording (every point of `search_spaces/learning_rate.toml` with every seed, its whole budget, one run
after another in this process) and the reading. A run is one line of JSON; recording goes on after the last.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from showhow.datasets.prepare import Preparation
from showhow.metrics import TEST, VALIDATION, on_split
from showhow.study.assignment import Assignment
from showhow.study.fitting import layout_of
from showhow.study.sections import Resources, Sharding
from showhow.study.study import Study
from showhow.study.trial import Trial

STUDY = Path("search_spaces/learning_rate.toml")
CURVES = Path(__file__).with_name("learning_curves.jsonl")
SEEDS = range(4)
LEVELS = ("long", "short", "none")


@dataclass(frozen=True)
class Curve:
    """One whole run. examples, train_loss (nats per target token, mean since the last report) and accuracy (on
    validation) are per report; test_accuracy is taken at the end of the budget."""

    level: str
    trial: str
    learning_rate: float
    seed: int
    examples: tuple[int, ...]
    train_loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    test_accuracy: float


def read_curves() -> list[Curve]:
    """Return what was recorded so far."""
    if not CURVES.exists():
        return []
    reader = TypeAdapter(Curve)
    return [reader.validate_json(line) for line in CURVES.read_text(encoding="utf-8").splitlines()]


def record(seconds: float) -> int:
    """Train and append runs that are missing until `seconds` are over; return how many are missing still."""
    from showhow.training.threads import use_threads  # loads torch, for which those who only read must not wait

    missing = list(_missing(Study.load(STUDY)))
    use_threads(1)
    with tempfile.TemporaryDirectory() as home:
        preparation = Preparation(Path(home), lambda _line: None)
        started = time.monotonic()
        while missing and time.monotonic() - started < seconds:
            trial, seed = missing.pop(0)
            line = json.dumps(asdict(_run(trial, seed, preparation)))
            with CURVES.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    return len(missing)


def _missing(study: Study) -> Iterator[tuple[Trial, int]]:
    done = {(curve.trial, curve.seed) for curve in read_curves()}
    for seed in SEEDS:
        for level in LEVELS:
            for trial in study.trials:
                if trial.level == level and (trial.name, seed) not in done:
                    yield trial, seed


def _run(trial: Trial, seed: int, preparation: Preparation) -> Curve:
    from showhow.methods.sft import fine_tune

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
    )
