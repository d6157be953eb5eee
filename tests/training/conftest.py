"""Small real things: tokenised datasets, recipes, models of a few thousand parameters."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from showhow.datasets.generate import generate
from showhow.datasets.tokenise import tokenise
from showhow.datasets.tokenizer import StudyTokenizer, symbol_tokenizer
from showhow.machines.assignment import Assignment
from showhow.machines.fitting import layout_of
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.sections.recipe import Recipe, ScratchModel
from showhow.sections.resources import Resources, Sharding
from showhow.sections.trial import Trial
from showhow.tasks import task_named
from showhow.tasks.base import Task
from showhow.tasks.explain import Level
from showhow.training.tokens import TokenFile

EASY: Task = task_named("modular_sum", {"terms": 3, "below": 6, "modulus": 3})
VARIED: Task = task_named("listops", {"style": "symbols", "min_length": 3, "max_length": 20, "max_arguments": 4})

Files = Callable[..., TokenFile]
Recipes = Callable[..., Recipe]


@cache
def words(task: Task) -> StudyTokenizer:
    return symbol_tokenizer([task])


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def tokens(home: Path) -> Files:
    """Tokenised examples of a task (prompts and targets of `VARIED` differ in length, those of `EASY` do not)."""

    def made(
        task: Task = EASY,
        level: Level = Level.LONG,
        examples: int = 100,
        split: str = TRAIN,
        by: StudyTokenizer | None = None,
    ) -> TokenFile:
        of = DatasetSpec(task=task, level=level, split=split, examples=examples, seed=0, control_length=Level.LONG)
        return TokenFile(tokenise(generate(of, home / "datasets", on_cluster=False), by or words(task), 4096, 0.0))

    return made


@pytest.fixture(scope="session")
def easy() -> Task:
    return EASY


@pytest.fixture(scope="session")
def varied() -> Task:
    return VARIED


@pytest.fixture(scope="session")
def recipe() -> Recipes:
    def made(**changes: Any) -> Recipe:
        return Recipe.model_validate(
            {"batch_size": 8, "max_examples": 400, "learning_rate": 3e-3, "precision": "float32"} | changes
        )

    return made


@pytest.fixture(scope="session")
def sizes() -> Callable[..., ScratchModel]:
    def made(architecture: str = "llama", **changes: Any) -> ScratchModel:
        of_llama = {"initializer_range": 0.1} if architecture == "llama" else {}
        return ScratchModel.model_validate(
            {"architecture": architecture, "hidden_size": 32, "layers": 2, "heads": 2} | of_llama | changes
        )

    return made


@pytest.fixture(scope="session")
def prepared(home: Path) -> Callable[..., Assignment]:
    """What a process is told, with the datasets that it reads made."""

    def made(trial: Trial, seed: int = 0, goal: float | None = None, **changes: Any) -> Assignment:
        words = symbol_tokenizer([trial.dataset(split).task for split in trial.splits])
        words.save(home / "tokenizer" / words.fingerprint / "tokenizer.json")
        files = {
            split: tokenise(generate(trial.dataset(split), home, on_cluster=False), words, 4096, 0.0)
            for split in trial.splits
        }
        return Assignment(
            trial=trial,
            seed=seed,
            shards=files,
            tokenizer=home / "tokenizer" / words.fingerprint / "tokenizer.json",
            goal_accuracy=goal,
            **{"layout": layout_of(trial, Resources(), Sharding())} | changes,
        )

    return made


@pytest.fixture(scope="session")
def trial(easy: Task, recipe: Recipes) -> Callable[..., Trial]:
    """A trial of a small model on an easy task."""

    def made(
        level: str = "long", architecture: str = "llama", evaluation: Any = None, method: Any = None, **changes: Any
    ) -> Trial:
        size: dict[str, float] = {"hidden_size": 64, "layers": 2, "heads": 2}
        size |= {"initializer_range": 0.04, "rope_theta": 30.0} if architecture == "llama" else {}
        of = recipe(**{"max_examples": 8000, "batch_size": 16, "learning_rate": 2e-3} | changes)
        return Trial.model_validate(
            {
                "name": "trial-000",
                "arm": level,
                "setting": {},
                "level": level,
                "method": method or {"kind": "plain"},
                "budget": {"unit": "examples", "amount": of.max_examples},
                "point": {},
                "task": easy.model_dump(),
                "data": {"train_examples": 150, "eval_examples": 12, "eval_splits": {"longer": {"terms": 4}}},
                "model": {"kind": "scratch", "architecture": architecture, **size},
                "recipe": of.model_dump(),
                "evaluation": evaluation or {"every_examples": 800},
            }
        )

    return made
