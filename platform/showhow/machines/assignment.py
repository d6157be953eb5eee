"""What a process is told to do: one trial with one seed, what it reads, how it is laid out, where it keeps its state.
Pure; it travels as JSON."""

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from showhow.machines.layout import Layout
from showhow.sections.scalars import STRICT
from showhow.sections.trial import Trial

# Takes what happened to a run: the kind (see tracker.RunNoted), after how many training examples, the words for it.
Note = Callable[[str, int, str], None]


class Assignment(BaseModel):
    """One run. shards: the tokenised datasets by split (train, validation, test and further ones). goal_accuracy: of
    all validation questions, at which the run ends. checkpoints: the run's own folder, reachable from every process
    (None: nothing is kept); save_every_seconds: least time between two checkpoints; keep_weights: whether the weights
    are saved at the end. home: where stages that runs share are stored (None: nowhere, they are this run's alone)."""

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
