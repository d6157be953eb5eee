"""The events of a study, and the protocol of trackers, which record them as one stream.

The JSONL tracker (`jsonl.py`) writes the stream to the study's journal, from which results, resuming and the picture
are derived. The MLflow tracker (`mlflow/tracker.py`) shows the same stream in the MLflow UI. They are independent.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from showhow.fingerprint import Json

RunStatus = Literal["finished", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class StudyStarted:
    """A study begins, or is resumed after an interruption. `facts` are system facts: versions, hosts, processors."""

    study: str
    question: str
    definition: dict[str, Json]
    facts: dict[str, Json]
    seconds_since_epoch: float


@dataclass(frozen=True)
class RunStarted:
    """One run (a trial with one seed) begins; `attempt` counts from 1 and grows when a run is tried again.

    `run` is its key within the study, such as `trial-003/seed-1`; `arm` names its arm, which is compared within the
    values of `setting`; `params` are the searched and fixed recipe fields, flat; `datasets` maps a role (train, or an
    evaluation split) to that dataset's manifest; the run ends when `budget`, in `unit`, is spent.
    """

    run: str
    trial: str
    seed: int
    arm: str
    params: dict[str, Json]
    datasets: dict[str, dict[str, Json]]
    attempt: int
    seconds_since_epoch: float
    level: str = ""
    setting: dict[str, Json] = field(default_factory=dict)
    is_control: bool = False
    unit: str = "examples"
    budget: float = 0.0


@dataclass(frozen=True)
class Reported:
    """Metrics of a run after `examples` training examples; names as in metrics.py."""

    run: str
    examples: int
    metrics: dict[str, float]
    seconds_since_epoch: float


@dataclass(frozen=True)
class RunNoted:
    """Something happened to a run apart from its metrics.

    kind: `resumed` when it continues from a checkpoint made after `examples` examples, so that its reports until then
    are valid; `adapted` when memory ran out and it continues with another layout, from its last checkpoint or from its
    beginning; `starting` and `started`, about its processes, are shown on the screen and not recorded."""

    run: str
    kind: Literal["resumed", "adapted", "starting", "started"]
    examples: int
    text: str
    seconds_since_epoch: float


@dataclass(frozen=True)
class RepliesSampled:
    """Some replies of a run with their grades, for people to read. Each row: question, target, reply, answer_right,
    steps_right, first_wrong_step."""

    run: str
    split: str
    rows: list[dict[str, Json]]
    seconds_since_epoch: float


@dataclass(frozen=True)
class StageEnded:
    """A run has used a stage of its method: `operation` (train, reply, score, map ...), `address` and its cost;
    `is_reused` where the stage was cached."""

    run: str
    operation: str
    address: str
    is_reused: bool
    examples: int
    tokens: int
    flops: float
    seconds: float
    seconds_since_epoch: float


@dataclass(frozen=True)
class RunEnded:
    """A run ends. `stopped_by` names the stop rule for status `stopped`; `reason` says why one failed.

    `outcome` contains what the comparison needs in addition to metrics (such as the grade of each test question)."""

    run: str
    status: RunStatus
    stopped_by: str | None
    reason: str | None
    outcome: dict[str, Json]
    seconds_since_epoch: float


@dataclass(frozen=True)
class StudyEnded:
    """A study ends or is interrupted. `files` are the paths of its results other than the journal (picture, table)."""

    status: RunStatus
    conclusion: str
    files: list[str]
    metrics: dict[str, float]
    seconds_since_epoch: float


Event = StudyStarted | RunStarted | Reported | RunNoted | RepliesSampled | StageEnded | RunEnded | StudyEnded


class Tracker(Protocol):
    """Records events in the order in which they happened."""

    def record(self, event: Event) -> None:
        """Take one event. It must not make training wait for a slow or unreachable server."""

    def close(self) -> None:
        """Return once everything recorded is saved, or say what could not be."""
