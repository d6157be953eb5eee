"""Laws of preparation: what waits for a cluster and what does not; what a model has no positions for."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from showhow.datasets.generate import is_large
from showhow.datasets.prepare import Preparation
from showhow.errors import UserError
from showhow.sections.dataset_spec import TRAIN
from showhow.sections.recipe import PretrainedModel
from showhow.study.plan import planned_trials
from showhow.study.study import Study

QUICKSTART = Path(__file__).parents[2] / "search_spaces" / "quickstart.toml"


def test_large_datasets_are_left_to_the_cluster_and_small_ones_made_before_it_is_there(tmp_path: Path) -> None:
    changes = ["task.terms=9", "data.train_examples=10_000_000", "search.samples=1"]
    trial = planned_trials(Study.load(QUICKSTART, changes))[0]
    preparation = Preparation(tmp_path, lambda _line: None)
    preparation.prepare_small([trial])
    made = {folder.name for folder in (tmp_path / "datasets").iterdir()}
    assert is_large(trial.dataset(TRAIN))
    assert made == {trial.dataset(split).fingerprint for split in trial.splits if split != TRAIN}


def test_of_a_model_with_few_positions_nobody_is_told_to_show_it_more_tokens(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: number for number, sign in enumerate([*alphabet, "<end>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 20}))
    changes = ["data.max_tokens=20", "data.train_examples=100", "data.eval_examples=200"]
    trial = planned_trials(Study.load(QUICKSTART, changes))[-1]
    asked = trial.model_copy(update={"model": PretrainedModel(kind="pretrained", name=str(tmp_path))})
    with pytest.raises(UserError, match="the model has positions for 20, so raising it would not help"):
        Preparation(tmp_path / "home", lambda _line: None).prepare([asked])
