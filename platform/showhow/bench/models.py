"""Models in a trial's process: built, laid out on its devices, one at a time."""

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
    """A model by what made it. weights: the folder that they lie in; None: as it is built."""

    address: str
    weights: Path | None = None


class Models:
    """Builds the models of a run and holds one engine at a time: two would not fit where one does."""

    def __init__(self, run: Assignment, special: SpecialTokens) -> None:
        self._run, self._special = run, special
        self._held: tuple[str, Engine] | None = None
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
        """Return the run's model as it is at the start. Raises TrialError and OutOfMemoryError."""
        self.release()
        trial, layout = self._run.trial, self._run.layout
        with memory_needed_for("building the model"), self._sharded_while_built():
            return build_model(
                trial.model, self._special, self._run.seed, trial.adapter, trial.recipe, layout.recompute_activations
            )

    def lay_out(self, module: torch.nn.Module, model: StagedModel) -> Engine:
        """Return a new engine for a built model, with the weights of `model`, and hold it. Raises OutOfMemoryError."""
        with memory_needed_for("laying out the model and its optimizer"):
            engine = _engine(module, self._run.trial.recipe, self._run.layout)
            if model.weights is not None:
                weights = read_weights(model.weights)
                if weights is None:
                    raise TrialError(f"{model.weights} holds no complete weights; delete it and run the study again")
                engine.load_weights(lambda name: weights[name.partition("/")[2]])
        self._held = (model.address, engine)
        return engine

    def hold(self, address: str, engine: Engine, save: Callable[[], None]) -> None:
        """Note that an engine now has another model, which `save` writes if its place is needed."""
        self._held, self._save = (address, engine), save

    def engine(self, model: StagedModel) -> Engine:
        """Return an engine that has a model: the one held, or a new one."""
        if self._held is not None and self._held[0] == model.address:
            return self._held[1]
        return self.lay_out(self.build(), model)

    def release(self) -> None:
        """Let go of the engine held."""
        if self._save is not None:
            self._save()
        self._save = None
        if self._held is not None:
            self._held = None
            give_back_memory()

    # DeepSpeed takes long to load, and small runs never need it.

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
