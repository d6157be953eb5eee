"""How long a trial of two processes takes from its start to the end of its first step: the first trial of a study, and
the one after it.

The peer is plain_train_start.py. The limit is what the two processes need at least, a processor each: to import torch,
transformers and DeepSpeed.
"""

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure, run_python, seconds, spread
from benchmarks.start_up import STUDY
from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import Reported, RunStarted

# Two trials of four steps, one after another, with a report after each step.
SHORT = (
    *("seeds=[0]", "search.samples=1", 'search.explanation={grid=["none","long"]}'),
    *("search.learning_rate={grid=[5e-4]}", "data.eval_examples=16", "recipe.max_examples=64"),
    *("recipe.warmup_examples=0", "evaluation.every_examples=16", "evaluation.validation_examples=16"),
    *("resources.devices_per_trial=2", "resources.max_concurrent=1"),
)


def figures(full: bool = False) -> list[Figure]:
    """Measure once, in a minute and a half, or five times in the long form."""
    _imports()  # so that all files are in the page cache
    taken = [(_showhow(), _plain(), seconds(_imports)) for _ in range(5 if full else 1)]
    found = []
    for index, name in enumerate(("two processes: to the first step", "the next two: to the first step")):
        ours = [run[index] for run, _, _ in taken]
        plain, least = median(run[index] for _, run, _ in taken), median(limit for _, _, limit in taken)
        found.append(Figure(name, "s", median(ours), spread(ours), plain, least, is_rate=False))
    return found


def _showhow() -> list[float]:
    """Return the seconds of each trial. Its first report leaves after one step and one evaluation, which says how long
    it took; so the report's way to the driver is counted."""
    with tempfile.TemporaryDirectory() as home:
        run_python("-m", "showhow.cli", "run", STUDY, "--set", *SHORT, "--name", "start", SHOWHOW_HOME=home)
        events = read_events(Path(home) / "start" / "journal.jsonl")
    started = {event.run: event.seconds_since_epoch for event in events if isinstance(event, RunStarted)}
    stepped = {
        event.run: event.seconds_since_epoch - event.metrics["eval_seconds"]
        for event in events
        if isinstance(event, Reported) and event.examples == 16
    }
    return [stepped[run] - begun for run, begun in sorted(started.items(), key=lambda item: item[1])]


def _plain() -> list[float]:
    """Return the same of the plain script."""
    taken: list[float] = json.loads(run_python("-m", "benchmarks.plain_train_start").splitlines()[-1])
    return taken


def _imports() -> None:
    """Import what a worker needs, in two processes at once."""
    needed = "import torch, deepspeed; from transformers import LlamaForCausalLM"
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda code: run_python("-c", code, DS_ACCELERATOR="cpu"), [needed] * 2))
