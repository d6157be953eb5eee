"""What a process has to do: one trial with one seed, the datasets it reads, its layout, and where it saves its state.
Pure; it is sent as JSON."""

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from showhow.machines.layout import Layout
from showhow.sections.scalars import STRICT
from showhow.sections.trial import Trial

# Called when something happens to a run: the kind (see tracker.RunNoted), the training examples so far, and a message.
Note = Callable[[str, int, str], None]


class Assignment(BaseModel):
    """One run.

    shards: the tokenised datasets by split (train, validation, test and others). goal_accuracy: the accuracy on all
    validation questions at which the run ends. checkpoints: the run's own folder, reachable from every process (None:
    nothing is saved). save_every_seconds: least time between two checkpoints. keep_weights: whether the weights are
    saved at the end. home: the folder of the stages that runs share (None: stages are not shared)."""

    model_config = STRICT

    trial: Trial
    seed: int
    shards: dict[str, Path]
    tokenizer: Path
    goal_accuracy: float | None
    layout: Layout
    checkpoints: Path | None = None
    save_every_seconds: float = 0.0
    keep_weights: bool = True
    home: Path | None = None
