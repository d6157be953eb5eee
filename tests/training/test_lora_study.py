"""The shipped study of an instruct model with adapters on imported rows, on a small Qwen2 in place of the large one."""

from pathlib import Path

import pytest
from folders import qwen_folder

from showhow.bench.fine_tune import fine_tune
from showhow.datasets.prepare import Preparation
from showhow.machines.assignment import Assignment
from showhow.machines.layout import Layout
from showhow.study.study import Study
from showhow.training.tokens import TokenFile

STUDY = Path(__file__).parents[2] / "search_spaces" / "lora_qwen.toml"
SMALLER = [
    "data.train_examples=48",
    "data.eval_examples=8",
    "data.max_tokens=1000",  # its tokenizer knows few words
    "recipe.max_examples=64",
    "recipe.warmup_examples=0",
    "evaluation.every_examples=32",
    "evaluation.validation_examples=8",
    "search.samples=1",
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = qwen_folder(tmp_path_factory.mktemp("models") / "qwen")
    return Study.load(STUDY, [*SMALLER, f"model.name={folder}", "resources.gpus_per_device=0"])


@pytest.mark.parametrize("level", ["none", "medium"])
def test_an_instruct_model_with_an_adapter_trains_on_imported_rows(study: Study, tmp_path: Path, level: str) -> None:
    trial = next(trial for trial in study.trials if trial.level == level)
    prepared = Preparation(tmp_path, lambda _line: None).of(trial)
    file = TokenFile(Path(prepared.shards["train"]))
    assert file.texts("target", 1)[0].rpartition("\n")[2].startswith("" if level == "none" else "Answer: ")
    run = Assignment(
        trial=trial,
        seed=0,
        shards={split: Path(shard) for split, shard in prepared.shards.items()},
        tokenizer=Path(prepared.tokenizer),
        goal_accuracy=None,
        layout=Layout(micro_batch_size=trial.recipe.batch_size),
    )
    reports: list[dict[str, float]] = []
    outcome = fine_tune(run, reports.append)
    assert [report["examples"] for report in reports] == [32, 64]
    assert len(outcome.grades) == 8
    assert reports[-1]["train_loss"] < reports[0]["train_loss"]
    assert ("test/steps_right" in reports[-1]) == (level == "medium")
