"""A study small enough to run in seconds, and the command line in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = """
name = "tiny"
question = "Does a tiny model learn a sum of two from steps?"
seeds = [0, 1]

[task]
kind = "modular_sum"
terms = 3
below = 5
modulus = 5

[data]
train_examples = 80
eval_examples = 10
eval_splits.longer = { terms = 4 }

[model]
kind = "scratch"
architecture = "llama"
hidden_size = 32
layers = 1

[recipe]
batch_size = 8
max_examples = 800
learning_rate = 3e-3

[search]
explanation = { grid = ["none", "long"] }

[evaluation]
every_examples = 80
"""


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study file: two levels, two seeds, a second of training each."""
    path = tmp_path_factory.mktemp("study") / "tiny.toml"
    path.write_text(TINY)
    return path


Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def showhow() -> Command:
    """Start the command with its studies in a folder of the test's own."""

    def start(*arguments: str | Path, home: Path, **settings: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "SHOWHOW_HOME": str(home), "PYTHONUNBUFFERED": "1", **settings}
        environment.pop("MLFLOW_TRACKING_URI", None) if "MLFLOW_TRACKING_URI" not in settings else None
        return subprocess.Popen(
            [sys.executable, "-m", "showhow.cli", *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a process group of its own, as a terminal gives it
        )

    return start
