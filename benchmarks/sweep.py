"""A whole study to its conclusion: `showhow run` of the quickstart beside the same study written plainly
(plain_sweep.py): same models, rows, budgets, questions and cadence, but no stopping, no goal, a fresh process a trial.

Both are timed as commands, from start to end. Within that time ours makes its datasets, keeps journal and MLflow, asks
a further split and draws its picture; the peer finds its rows ready. The limit is what our runs spend on training and
evaluation alone, spread evenly over the processors. The full form is the whole study, 24 runs, once, and beside the
peer as tuned for this processor (eager attention) also the peer with the attention that transformers takes by itself;
the short form is one learning rate and one seed of each level. Nothing is run unmeasured before: a person's first run
is not either.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Figure, spread
from showhow.datasets.prepare import Preparation
from showhow.home.folder import StudyFolder
from showhow.home.results import Results
from showhow.machines.budget import evaluate_every
from showhow.metrics import TEST, VALIDATION
from showhow.sections.dataset_spec import TRAIN
from showhow.sections.recipe import ScratchModel
from showhow.sections.trial import Trial
from showhow.study.study import Study
from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import Reported, RunEnded, RunStarted, StudyStarted
from showhow.training.tokens import TokenFile

STUDY = "search_spaces/quickstart.toml"
SHORT = ("seeds=[0]", "search.samples=1")
SHORT_REPEATS = 2
# The peer's: the faster one on CPUs, and the one that transformers takes by itself.
ATTENTION = ("eager", "sdpa")
CPUS = os.cpu_count() or 1
# As many tokens may a reply be longer than the longest right one; as in showhow.training.evaluate.
EXTRA_TOKENS = 4


@dataclass(frozen=True)
class Sweep:
    """One sweep: wall seconds, what the processors' seconds went into (they sum up to wall x CPUS), and by level the
    test accuracies of its best learning rate, one a seed."""

    wall: float
    spent: dict[str, float]
    accuracies: dict[str, list[float]]


def figures(full: bool = False) -> list[Figure]:
    """Run both sweeps. Prints what each spent its time on and what it found. Raises AssertionError when they do not
    agree on which levels learn the task."""
    changes = () if full else SHORT
    study = Study.load(STUDY, changes)
    ours: list[Sweep] = []
    peers: dict[str, list[Sweep]] = defaultdict(list)
    for _ in range(1 if full else SHORT_REPEATS):
        ours.append(_run(lambda folder: _ours(study, changes, folder)))
        for attention in ATTENTION if full else ATTENTION[:1]:
            peers[attention].append(_run(partial(_peer, study, attention)))
            _check(study, ours[-1], peers[attention][-1])
    walls = [sweep.wall for sweep in ours]
    computing = [(sweep.spent["training"] + sweep.spent["evaluation"]) / CPUS for sweep in ours]
    runs = len(study.trials) * len(study.seeds)
    return [
        Figure(
            f"quickstart, {runs} runs (peer: {attention} attention)",
            "s",
            median(walls),
            spread(walls),
            peer=median(sweep.wall for sweep in found),
            limit=median(computing),
            is_rate=False,
        )
        for attention, found in peers.items()
    ]


def _run(sweep: Callable[[Path], Sweep]) -> Sweep:
    """Give a sweep a folder of its own. It stays where it is when the sweep fails."""
    folder = Path(tempfile.mkdtemp(prefix="sweep-"))
    found = sweep(folder)
    shutil.rmtree(folder)
    return found


def _ours(study: Study, changes: tuple[str, ...], folder: Path) -> Sweep:
    settings = [word for change in changes for word in ("--set", change)]
    begun, ended = _timed(folder, "showhow.cli", "run", STUDY, *settings)
    study_folder = StudyFolder(folder, study.name)
    ready, starts, ends, last = begun, {}, {}, {}
    for event in read_events(study_folder.journal):
        match event:
            case StudyStarted():
                ready = event.seconds_since_epoch
            case RunStarted():
                starts[event.run] = event.seconds_since_epoch
            case Reported():
                last[event.run] = event.metrics
            case RunEnded():
                ends[event.run] = event.seconds_since_epoch
    names = {"training": "train_seconds", "evaluation": "eval_seconds"}
    inside = {name: sum(metrics[key] for metrics in last.values()) for name, key in names.items()}
    spent = _spent((begun, ready, ended), [(starts[run], ends[run]) for run in ends], inside)
    result = Results(study_folder).result
    return Sweep(ended - begun, spent, {row.arm: list(row.accuracies) for row in result.rows})


def _peer(study: Study, attention: str, folder: Path) -> Sweep:
    plan = folder / "plan.json"
    told = _plan(study, folder)
    told["model"]["attn_implementation"] = attention
    plan.write_text(json.dumps(told), encoding="utf-8")
    begun, ended = _timed(folder, "benchmarks.plain_sweep", str(plan), str(folder))
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = results["runs"]
    names = {"imports": "import", "set-up": "setup", "training": "train", "evaluation": "eval"}
    inside = {name: sum(row[f"{key}_seconds"] for row in rows) for name, key in names.items()}
    spent = _spent((begun, results["ready"], ended), [(row["begun"], row["ended"]) for row in rows], inside)
    return Sweep(ended - begun, spent, {level.value: _best(rows, level.value) for level in study.levels})


def _best(rows: list[dict[str, Any]], level: str) -> list[float]:
    """Return the test accuracies of the learning rate with the best last validations, as ours chooses it."""
    by_rate = defaultdict(list)
    for row in rows:
        if row["level"] == level:
            by_rate[row["learning_rate"]].append(row)
    best = max(by_rate.values(), key=lambda runs: fmean(run["validations"][-1] for run in runs))
    return [run["test"] for run in best]


def _timed(home: Path, *command: str) -> tuple[float, float]:
    """Run a module as a command; return when it began and ended. Raises RuntimeError when it fails."""
    log = home / "log.txt"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with log.open("wb") as file:
        begun = time.time()
        code = subprocess.run(
            [sys.executable, "-m", *command],
            env=environment | {"SHOWHOW_HOME": str(home)},
            stdout=file,
            stderr=subprocess.STDOUT,
        ).returncode
        ended = time.time()
    if code:
        raise RuntimeError(f"{' '.join(command)} failed; {log} tells why")
    return begun, ended


def _spent(
    whole: tuple[float, float, float], runs: list[tuple[float, float]], inside: dict[str, float]
) -> dict[str, float]:
    """Return what the processors' seconds went into.

    whole: when the command began, was ready to start runs, and ended; runs: begin and end of each; inside: what is
    known of the time within runs."""
    begun, ready, ended = whole
    first, last = min(run[0] for run in runs), max(run[1] for run in runs)
    in_runs = sum(run[1] - run[0] for run in runs)
    at_the_end = sum(last - end for end in sorted(run[1] for run in runs)[-CPUS:])
    return {
        "until runs may start": CPUS * (ready - begun),
        "until the first starts": CPUS * (first - ready),
        **inside,
        "rest of the runs": in_runs - sum(inside.values()),
        "between runs": CPUS * (last - first) - in_runs - at_the_end,
        "beside the last run": at_the_end,
        "after the last run": CPUS * (ended - last),
    }


def _plan(study: Study, folder: Path) -> dict[str, Any]:
    """Return what the peer is told, its rows written beside: those of our datasets, in our tokens."""
    preparation = Preparation(folder, lambda _line: None)
    trials = {trial.level.value: trial for trial in study.trials}
    shards = {level: _rows(trial, preparation.of(trial).shards, folder) for level, trial in trials.items()}
    trial = study.trials[0]
    ready, recipe = preparation.of(trial), trial.recipe
    fields = ("batch_size", "max_examples", "warmup_examples", "beta_2", "gradient_clip")
    return {
        **{name: getattr(recipe, name) for name in fields},
        "level": list(trials),
        "learning_rate": sorted({one.recipe.learning_rate for one in study.trials}),
        "seed": list(study.seeds),
        "shards": shards,
        "tokenizer": ready.tokenizer,
        "model": _model(trial, TokenFile(Path(ready.shards[TRAIN]))),
        "every_examples": evaluate_every(trial),
        "questions": {VALIDATION: trial.validation_examples, TEST: trial.data.eval_examples},
        "answer_prefix": trial.task.text_format.answer_prefix,
        "extra_tokens": EXTRA_TOKENS,
    }


def _rows(trial: Trial, shards: dict[str, str], folder: Path) -> dict[str, str]:
    """Write the rows of a trial's splits as Parquet."""
    written = {}
    for split in (TRAIN, VALIDATION, TEST):
        file = TokenFile(Path(shards[split]))
        columns = {
            "prompt_ids": [file.prompt(row).tolist() for row in range(len(file))],
            "target_ids": [file.target(row).tolist() for row in range(len(file))],
            "target": file.texts("target", len(file)),
        }
        written[split] = str(folder / f"{trial.level}-{split}.parquet")
        pq.write_table(pa.table(columns), written[split])
    return written


def _model(trial: Trial, file: TokenFile) -> dict[str, Any]:
    spec, special = trial.model, file.special
    if not isinstance(spec, ScratchModel):
        raise TypeError(f"{STUDY} trains a model from scratch no more; write its peer anew")
    return {
        "vocab_size": special.vocabulary,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.feed_forward_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.attention_heads,
        "initializer_range": spec.initializer_range,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
        "tie_word_embeddings": spec.tie_embeddings,
        "pad_token_id": special.pad,
        "eos_token_id": special.end,
        "bos_token_id": special.start,
    }


def _check(study: Study, ours: Sweep, peer: Sweep) -> None:
    """Print both sweeps side by side, and raise AssertionError when they disagree on which levels learn the task."""
    print(f"  {ours.wall:.1f} s, peer {peer.wall:.1f} s. The seconds of {CPUS} processors went into (ours, peer):")
    for name in dict.fromkeys([*peer.spent, *ours.spent]):
        seconds = [sweep.spent.get(name, 0.0) for sweep in (ours, peer)]
        shares = [value / sweep.wall / CPUS for value, sweep in zip(seconds, (ours, peer), strict=True)]
        print(f"  {name:<24}{seconds[0]:8.1f} {shares[0]:5.0%}{seconds[1]:10.1f} {shares[1]:5.0%}")
    found = [_solved(sweep, study.evaluation.solved_accuracy) for sweep in (ours, peer)]
    for who, solved in zip(("ours", "peer"), found, strict=True):
        print(
            f"  solved, {who}: " + ", ".join(f"{level} {runs} of {len(study.seeds)}" for level, runs in solved.items())
        )
    learned = [{level for level, runs in solved.items() if 2 * runs > len(study.seeds)} for solved in found]
    if learned[0] != learned[1]:
        raise AssertionError(f"most seeds learn the task in our sweep at {learned[0]}, in the peer's at {learned[1]}")


def _solved(sweep: Sweep, at: float) -> dict[str, int]:
    return {level: sum(accuracy >= at for accuracy in seeds) for level, seeds in sweep.accuracies.items()}
