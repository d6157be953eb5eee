"""The models in a trial's process: builds them and puts them on its devices, one at a time."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from showhow.errors import TrialError
from showhow.fingerprint import fingerprint
from showhow.machines.assignment import Assignment
from showhow.machines.layout import Layout
from showhow.sections.recipe import Recipe
from showhow.training.checkpoints.files import read_weights
from showhow.training.engine import Engine, PlainEngine
from showhow.training.memory import give_back_memory, memory_needed_for
from showhow.training.model import build_model
from showhow.training.tokens import SpecialTokens


@dataclass(frozen=True)
class StagedModel:
    """A model, addressed by what made it. weights: their folder; None: those it is built with."""

    address: str
    weights: Path | None = None


class Models:
    """Builds the models of a run and has one engine at a time: where one fits, two may not."""

    def __init__(self, run: Assignment, special: SpecialTokens) -> None:
        self._run, self._special = run, special
        self._current: tuple[str, Engine] | None = None
        self._save: Callable[[], None] | None = None

    @property
    def start(self) -> StagedModel:
        """The run's model before any training: a function of its settings and the seed."""
        trial = self._run.trial
        made_of = {
            "model": trial.model.model_dump(mode="json"),
            "adapter": None if trial.adapter is None else trial.adapter.model_dump(mode="json"),
            "vocabulary": self._special.vocabulary,
            "seed": self._run.seed,
        }
        return StagedModel(fingerprint({"operation": "start", **made_of}))

    def build(self) -> torch.nn.Module:
        """Return the run's model before any training. Raises TrialError and OutOfMemoryError."""
        self.release()
        trial, layout = self._run.trial, self._run.layout
        with memory_needed_for("building the model"), self._sharded_while_built():
            return build_model(
                trial.model, self._special, self._run.seed, trial.adapter, trial.recipe, layout.recompute_activations
            )

    def lay_out(self, module: torch.nn.Module, model: StagedModel) -> Engine:
        """Return a new engine for a built model, with the weights of `model`; it becomes the current one. Raises
        OutOfMemoryError."""
        with memory_needed_for("laying out the model and its optimizer"):
            engine = _engine(module, self._run.trial.recipe, self._run.layout)
            if model.weights is not None:
                weights = read_weights(model.weights)
                if weights is None:
                    raise TrialError(f"{model.weights} contains no complete weights; delete it and run the study again")
                engine.load_weights(lambda name: weights[name.partition("/")[2]])
        self._current = (model.address, engine)
        return engine

    def set_current(self, address: str, engine: Engine, save: Callable[[], None]) -> None:
        """Make a trained model the current one; `save` writes its weights before another replaces it."""
        self._current, self._save = (address, engine), save

    def engine(self, model: StagedModel) -> Engine:
        """Return an engine with a model: the current or a new one."""
        if self._current is not None and self._current[0] == model.address:
            return self._current[1]
        return self.lay_out(self.build(), model)

    def release(self) -> None:
        """Free the current engine."""
        if self._save is not None:
            self._save()
        self._save = None
        if self._current is not None:
            self._current = None
            give_back_memory()

    # DeepSpeed is slow to import, and small runs never need it.

    def _sharded_while_built(self) -> AbstractContextManager[None]:
        if self._run.layout.needs_deepspeed:
            from showhow.training.deepspeed_engine import sharded_while_built

            return sharded_while_built(self._run.trial.model, self._run.trial.recipe, self._run.layout)
        return nullcontext()


def _engine(model: torch.nn.Module, recipe: Recipe, layout: Layout) -> Engine:
    if layout.needs_deepspeed:
        from showhow.training.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(model, recipe, layout)
    return PlainEngine(model, recipe)
