"""A study run in this process, with everything that a sitting leaves behind: journal, weights, result, MLflow runs."""

import time
from pathlib import Path

import torch

from showhow.bench.fine_tune import fine_tune
from showhow.datasets.prepare import Preparation
from showhow.home.folder import StudyFolder
from showhow.home.results import write_result
from showhow.machines.assignment import Assignment
from showhow.machines.fitting import layout_of
from showhow.sections.trial import Trial
from showhow.study.study import Study
from showhow.sweep.recorder import flat_params
from showhow.tracking.jsonl import JsonlTracker
from showhow.tracking.mlflow.tracker import MlflowTracker
from showhow.tracking.several import Trackers
from showhow.tracking.tracker import RepliesSampled, Reported, RunEnded, RunStarted, StudyEnded, StudyStarted, Tracker

SMALL = """
name = "small"
question = "Is a sum learned from steps?"
seeds = [0, 1]
task = { kind = "modular_sum", terms = 3, below = 6, modulus = 3 }
data = { train_examples = 150, eval_examples = 12, max_tokens = 256, eval_splits.longer = { terms = 4 } }
recipe = { batch_size = 16, max_examples = 480, learning_rate = 2e-3, precision = "float32" }
evaluation = { every_examples = 480 }
search = { explanation = { grid = ["long"] } }
"""
LLAMA = 'model = { kind = "scratch", architecture = "llama", hidden_size = 32, layers = 1, initializer_range = 0.1 }\n'
T5 = 'model = { kind = "scratch", architecture = "t5", hidden_size = 32, layers = 1 }\n'


def studied(home: Path, text: str, ends: bool = True, uri: str | None = None) -> StudyFolder:
    """Run a study in `home`; `uri`: where MLflow keeps its runs, if it is to."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "study.toml").write_text(text)
    study = Study.load(home / "study.toml")
    folder = StudyFolder(home, study.name)
    folder.make()
    folder.claim(study)
    tracker = Trackers([JsonlTracker(folder.journal), *([MlflowTracker(uri, folder.path)] if uri else [])])
    facts = {"version.torch": torch.__version__, "processor": "a fast one", "host": "secret-host"}
    tracker.record(StudyStarted(study.name, study.question, study.definition(), facts, time.time()))
    preparation = Preparation(home, lambda _line: None)
    for trial in study.trials:
        for seed in study.seeds:
            _run(study, folder, preparation, tracker, trial, seed)
    write_result(folder)
    if ends:
        tracker.record(StudyEnded("finished", "", [], {}, time.time()))
    tracker.close()
    return folder


def _run(
    study: Study, folder: StudyFolder, preparation: Preparation, tracker: Tracker, trial: Trial, seed: int
) -> None:
    key, ready = f"{trial.name}/seed-{seed}", preparation.of(trial)
    params, level = flat_params(trial, seed), trial.level.value
    tracker.record(
        RunStarted(
            key, trial.name, seed, trial.arm, params, ready.manifests, 1, time.time(), level, budget=trial.budget.amount
        )
    )
    run = Assignment(
        trial=trial,
        seed=seed,
        shards={split: Path(path) for split, path in ready.shards.items()},
        tokenizer=Path(ready.tokenizer),
        goal_accuracy=None,
        layout=layout_of(trial, study.resources, study.sharding),
        checkpoints=folder.checkpoints / key,
    )
    outcome = fine_tune(run, lambda told: tracker.record(Reported(key, int(told["examples"]), told, time.time())))
    for split, rows in outcome.samples.items():
        tracker.record(RepliesSampled(key, split, rows, time.time()))
    grades = "".join("1" if right else "0" for right in outcome.grades)
    tracker.record(RunEnded(key, "finished", None, None, {"reached_goal": False, "grades": grades}, time.time()))
