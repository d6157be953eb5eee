"""A small study file for the tests of this folder, ways to change it, and a model that it may name."""

import json
from math import prod
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


def store_llama(folder: Path, hidden: int = 64, layers: int = 2, vocabulary: int = 100) -> None:
    """A pretrained model's folder, but for its weights' values."""
    folder.mkdir(parents=True)
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden]}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.self_attn.{part}_proj.weight": [hidden, hidden] for part in "qkvo"}
        shapes |= {f"model.layers.{layer}.mlp.{part}_proj.weight": [4 * hidden, hidden] for part in ("gate", "up")}
        shapes[f"model.layers.{layer}.mlp.down_proj.weight"] = [hidden, 4 * hidden]
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + 4 * prod(shape)]}
        end += 4 * prod(shape)
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2, "vocab_size": vocabulary}
    settings = {"model_type": "llama", "intermediate_size": 4 * hidden, "tie_word_embeddings": True, **sizes}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
