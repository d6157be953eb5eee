"""A small study file for the tests of this folder, and ways to change it."""

from pathlib import Path

import pytest

from showhow.errors import UserError
from showhow.study.study import Study

TEXT = """\
name = "small"
question = "How much?"
seeds = [0, 1]

[task]
kind = "modular_sum"
terms = 6

[data]
train_examples = 2_000
eval_examples = 100
eval_splits.longer = { terms = 8 }

[model]
kind = "scratch"
architecture = "llama"
hidden_size = 64
layers = 2

[recipe]
batch_size = 16
max_examples = 1_600

[search]
samples = 2
explanation = { grid = ["none", "long"] }
learning_rate = { log_uniform = [1e-4, 1e-3] }

[evaluation]
every_examples = 160

[stop]
kind = "asha"

[resources]
cpus_per_device = 1
"""


def changed(*changes: tuple[str, str]) -> str:
    """The text with each old part replaced by a new one."""
    text = TEXT
    for old, new in changes:
        assert old in text, f"{old!r} is not in the study"
        text = text.replace(old, new, 1)
    return text


def load(folder: Path, text: str = TEXT, *settings: str) -> Study:
    path = folder / "study.toml"
    path.write_bytes(text.encode())
    return Study.load(path, settings)


def complaint(folder: Path, text: str, *settings: str) -> str:
    """What is said of a study that cannot be, without the name of its folder."""
    with pytest.raises(UserError) as caught:
        load(folder, text, *settings)
    return str(caught.value).replace(f"{folder}/", "")


def line_of(text: str, part: str) -> int:
    """The line on which a part of the text begins; each part is to stand there once."""
    assert text.count(part) == 1, f"{part!r} stands there {text.count(part)} times"
    return text[: text.index(part)].count("\n") + 1
