"""Laws of the plan's estimates beside the real things: parameters of real models, tokens of the real tokenizer."""

from pathlib import Path

import pytest
import torch

from showhow.datasets.tokenizer import symbol_tokenizer
from showhow.models.lengths import vocabulary_size
from showhow.models.sizes import sizes_of
from showhow.sections.recipe import ScratchModel
from showhow.study.study import Study
from showhow.tasks import TASKS, task_named
from showhow.training import model as real
from showhow.training.tokens import SpecialTokens

SIZES = [
    {"hidden_size": 64, "layers": 1},
    {"hidden_size": 96, "layers": 3, "heads": 4, "mlp_size": 100},
    {"hidden_size": 128, "layers": 2, "heads": 16, "mlp_size": 512},
]
TASK_FORMS = [
    ("modular_sum", {}),
    ("modular_sum", {"style": "operand", "terms": 3, "below": 500, "modulus": 97}),
    ("modular_sum", {"style": "sentence"}),
    ("listops", {}),
    ("listops", {"style": "symbols", "max_arguments": 3}),
    ("listops-30", {}),
]


@pytest.mark.parametrize(("architecture", "tied"), [("llama", True), ("llama", False), ("t5", True)])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size['hidden_size']}x{size['layers']}")
def test_the_formula_counts_the_parameters_of_the_real_model(
    architecture: str, tied: bool, size: dict[str, int]
) -> None:
    spec = ScratchModel.model_validate({"architecture": architecture, "tie_embeddings": tied, **size})
    with torch.device("meta"):
        model = real.build_model(spec, SpecialTokens(vocabulary=37, pad=0, end=1, start=None), seed=0)
    assert spec.parameter_count(37) == real.parameter_count(model)


@pytest.mark.parametrize(("name", "changes"), TASK_FORMS)
def test_the_vocabulary_is_that_of_the_real_tokenizer(name: str, changes: dict[str, object]) -> None:
    task = task_named(name, changes)
    size = symbol_tokenizer([task]).tokenizer.get_vocab_size()
    assert vocabulary_size(task) == pytest.approx(size, abs=2)


def test_the_forms_above_are_of_every_task() -> None:
    assert {task_named(name, changes).kind for name, changes in TASK_FORMS} == set(TASKS)


def test_the_quickstart_is_planned_with_the_parameters_it_has() -> None:
    trial = Study.load(Path(__file__).parents[2] / "search_spaces" / "quickstart.toml").trials[0]
    tokenizer = symbol_tokenizer([trial.dataset(split).task for split in trial.splits])
    size = tokenizer.tokenizer.get_vocab_size()
    special = SpecialTokens(tokenizer.ids.pad, tokenizer.ids.end, tokenizer.ids.start, size)
    model = real.build_model(trial.model, special, seed=0)
    sizes = sizes_of(trial)
    assert sizes is not None
    assert sizes.parameters == pytest.approx(real.parameter_count(model), rel=0.01)
