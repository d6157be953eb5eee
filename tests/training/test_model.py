"""Models: sizes as planned, weights a function of the seed, pretrained ones from safetensors and never from code."""

import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import SENTENCES, causal_folder, seq2seq_folder
from transformers import GPT2LMHeadModel

from showhow.datasets.tokenizer import StudyTokenizer, pretrained_tokenizer
from showhow.errors import TrialError
from showhow.sections.recipe import PretrainedModel, Recipe, ScratchModel
from showhow.tasks.explain import Level
from showhow.training.batches import Source, training_batches
from showhow.training.engine import PlainEngine
from showhow.training.evaluate import Grading, evaluate
from showhow.training.loop import train
from showhow.training.model import build_model, is_seq2seq
from showhow.training.tokens import SpecialTokens, TokenFile

Files = Callable[..., TokenFile]
SPECIAL = SpecialTokens(pad=0, end=1, start=None, vocabulary=40)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("models")
    return {make.__name__: make(home / make.__name__) for make in (causal_folder, seq2seq_folder)}


def build(folder: Path, seed: int = 0, special: SpecialTokens = SPECIAL) -> torch.nn.Module:
    return build_model(PretrainedModel(kind="pretrained", name=str(folder)), special, seed)


@pytest.mark.parametrize(("architecture", "tied"), [("llama", True), ("llama", False), ("t5", True)])
def test_a_scratch_model_is_built_as_its_recipe_says(
    sizes: Callable[..., ScratchModel], architecture: str, tied: bool
) -> None:
    model: Any = build_model(sizes(architecture, tie_embeddings=tied), SPECIAL, 0)
    assert is_seq2seq(model) == (architecture == "t5")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_weights_are_a_function_of_the_seed(sizes: Callable[..., ScratchModel], architecture: str) -> None:
    one, again, other = (
        torch.cat([p.detach().flatten() for p in build_model(sizes(architecture), SPECIAL, seed).parameters()])
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", ["causal_folder", "seq2seq_folder"])
def test_a_pretrained_folder_trains_from_its_weights_and_is_evaluated(
    tokens: Files, folders: dict[str, Path], recipe: Callable[..., Recipe], name: str
) -> None:
    words: StudyTokenizer = pretrained_tokenizer(str(folders[name]))
    file = tokens(SENTENCES, Level.LONG, 100, by=words)
    of = recipe(max_examples=1600, batch_size=16, learning_rate=3e-3)

    def trained(seed: int, reports: int) -> tuple[torch.nn.Module, list[float]]:
        model = build(folders[name], seed, file.special)
        assert is_seq2seq(model) == (name == "seq2seq_folder")
        batches = training_batches(Source(file, of, 0, is_seq2seq(model)))
        told = islice(train(PlainEngine(model, of), of, batches, 320, seed=seed), reports)
        return model, [progress.train_loss for progress in told]

    model, losses = trained(seed=0, reports=5)
    assert losses[0] == trained(seed=0, reports=1)[1][0]  # dropout, too, is a function of the seed
    assert losses[0] != trained(seed=1, reports=1)[1][0]
    assert losses[-1] < losses[0] / 2
    assert file.layout.step_separator == ("; " if name == "seq2seq_folder" else "\n")
    found = evaluate(model, Grading(words.tokenizer, Level.LONG), file, 20, 32)
    assert any(file.layout.step_separator + "answer " in str(row["reply"]) for row in found.samples)


def test_weights_are_those_of_the_folder_in_float32(folders: dict[str, Path], tmp_path: Path) -> None:
    half = tmp_path / "half"
    original = GPT2LMHeadModel.from_pretrained(folders["causal_folder"])
    original.to(torch.bfloat16).save_pretrained(half)
    model: Any = build(half)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    expected = original.transformer.h[0].mlp.c_fc.weight
    assert torch.equal(model.transformer.h[0].mlp.c_fc.weight, expected.float())


def test_a_tokenizer_with_more_tokens_than_the_model_makes_the_model_larger(folders: dict[str, Path]) -> None:
    words = pretrained_tokenizer(str(folders["causal_folder"]))
    assert words.ids.pad == words.tokenizer.get_vocab_size() - 1
    special = SpecialTokens(words.ids.pad, words.ids.end, None, words.ids.pad + 1)
    model: Any = build(folders["causal_folder"], special=special)
    assert model.get_input_embeddings().num_embeddings == words.ids.pad + 1


def test_weights_that_are_no_safetensors_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(folders["causal_folder"], folder)
    (folder / "model.safetensors").unlink()
    torch.save(GPT2LMHeadModel.from_pretrained(folders["causal_folder"]).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(TrialError, match=f'"{folder}" cannot be loaded.*safetensors'):
        build(folder)


def test_a_folder_that_holds_no_whole_model_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrialError, match=f'"{tmp_path}" cannot be loaded'):
        build(tmp_path)
    folder = tmp_path / "cut"
    shutil.copytree(folders["causal_folder"], folder)
    weights = (folder / "model.safetensors").read_bytes()
    for content in (weights[: len(weights) // 2], b"nothing"):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(TrialError, match=f'"{folder}" cannot be loaded'):
            build(folder)
    config = json.loads((folder / "config.json").read_text()) | {"n_embd": 96}
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrialError, match=f'"{folder}" cannot be loaded'):
        build(folder)


def test_code_in_a_models_folder_is_never_run(folders: dict[str, Path], tmp_path: Path) -> None:
    folder, evidence = tmp_path / "coded", tmp_path / "was-run"
    shutil.copytree(folders["causal_folder"], folder)
    (folder / "evil.py").write_text(f"open({str(evidence)!r}, 'w')\nfrom transformers import GPT2Config as Config\n")
    config = json.loads((folder / "config.json").read_text())
    mapping = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    for model_type in ("gpt2", "of_my_own"):
        changed = config | {"auto_map": mapping, "model_type": model_type}
        (folder / "config.json").write_text(json.dumps(changed))
        if model_type == "gpt2":  # transformers' own class is taken
            build(folder)
        else:
            with pytest.raises(TrialError, match=f'"{folder}" cannot be loaded'):
                build(folder)
    assert not evidence.exists()


def test_a_model_without_a_cache_of_keys_and_values_is_refused(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, state_size=4)).save_pretrained(
        tmp_path
    )
    with pytest.raises(TrialError, match="mamba"):
        build(tmp_path)
