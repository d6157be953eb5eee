"""How long a person waits: for an answer of the command, for a study's first training step, and for the prompt after
its last run.

The limit of `--help` and `check` is Python's own start. A run's is one process that imports torch and transformers and
takes the same step, without a cluster, a data set on disk or a tracker: nothing of that can be left out. The peer of a
run is plain_start.py. After the last run ours compares, draws a picture and fills MLflow, and the peer does not.
"""

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure, alternately, run_python, spread
from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import Reported, RunEnded

STUDY = "search_spaces/quickstart.toml"
# The quickstart with its data, but a trial a level and runs of 200 steps, a few seconds, with a report after each.
SHORT = (
    *("seeds=[0]", "search.samples=1", "search.learning_rate={grid=[5e-4]}", "data.eval_examples=16"),
    *("recipe.max_examples=3200", "evaluation.every_examples=16", "evaluation.validation_examples=16"),
)


def figures(full: bool = False) -> list[Figure]:
    """Time `showhow --help`, `showhow check` and `showhow run`. The last takes 40 s with its peer and its limit, so it
    is done 3 times, or 7 in the long form."""
    found = []
    for name, arguments in (("showhow --help", ["--help"]), ("showhow check", ["check", STUDY])):
        ours, python = alternately(
            partial(run_python, "-m", "showhow.cli", *arguments), partial(run_python, "-c", "pass"), repeats=7
        )
        found.append(Figure(name, "s", median(ours), spread(ours), limit=median(python), is_rate=False))
    return found + _runs(7 if full else 3)


def _runs(repeats: int) -> list[Figure]:
    _plain("--alone")  # so that all files are in the page cache
    taken = [(_showhow(), _plain(), _plain("--alone")) for _ in range(repeats)]
    ours, plain, alone = ([run[index] for run in taken] for index in range(3))
    to_step, to_prompt = ([times[part] for times in ours] for part in (0, 1))
    return [
        Figure(
            "showhow run: to the first step",
            "s",
            median(to_step),
            spread(to_step),
            peer=median(times[0] for times in plain),
            limit=median(times[0] for times in alone),
            is_rate=False,
        ),
        Figure(
            "showhow run: last run's end to prompt",
            "s",
            median(to_prompt),
            spread(to_prompt),
            peer=median(times[1] for times in plain),
            is_rate=False,
        ),
    ]


def _showhow() -> tuple[float, float]:
    """Return the seconds from the command to the end of the first step, and from the last run's end to the prompt.

    The first report leaves a process after one step and one evaluation, which says how long it took; so the report's
    way to the driver is counted."""
    with tempfile.TemporaryDirectory() as home:
        begun = time.time()
        run_python("-m", "showhow.cli", "run", STUDY, "--set", *SHORT, "--name", "start", SHOWHOW_HOME=home)
        ended = time.time()
        events = read_events(Path(home) / "start" / "journal.jsonl")
    reports = [event for event in events if isinstance(event, Reported)]
    first = min(event.seconds_since_epoch - event.metrics["eval_seconds"] for event in reports)
    last = max(event.seconds_since_epoch for event in events if isinstance(event, RunEnded))
    return first - begun, ended - last


def _plain(*arguments: str) -> tuple[float, float]:
    """Return the same of the plain script."""
    begun = time.time()
    output = run_python("-m", "benchmarks.plain_start", *arguments)
    ended = time.time()
    first, last = json.loads(output.splitlines()[-1])
    return first - begun, ended - last
