"""What one run contributes to the answer: the typed input of the comparison. Pure."""

from dataclasses import dataclass, field

from showhow.fingerprint import Json
from showhow.methods.bench import Unit


@dataclass(frozen=True)
class RunOutcome:
    """How one run (a trial with one seed) ended.

    arm: the arm that it belongs to, within `setting`; level: its amount of explanation; is_control: whether the arm is
    a control; trial: name of its point of the search space; params: that point.
    status: finished, stopped, failed or interrupted; stopped_by: the stop rule's name where one ended it; has_ended:
    False where the journal has no end event.
    selection: last validation accuracy, by which the best trial of an arm is chosen (never the test accuracy); None if
    it was never evaluated.
    grades: for each test question, in the dataset's order, whether the answer was right; None unless the run used up
    its budget or solved the task, since only such runs may be compared.
    unit, budget: the budget's unit and amount; examples, tokens, flops: what it spent, None where that is not known;
    seconds: its wall time, 0 where that is not known.
    curve: (spent in `unit`, validation accuracy) pairs, in order.
    reached_goal: it ended because it had nothing left to learn.
    splits: accuracy on each further evaluation split; own_metrics: the last values of a user's metrics, by split and
    name (`test/brevity`).
    """

    arm: str
    trial: str
    seed: int
    params: dict[str, Json]
    status: str
    level: str = ""
    setting: dict[str, Json] = field(default_factory=dict)
    is_control: bool = False
    stopped_by: str | None = None
    has_ended: bool = True
    selection: float | None = None
    grades: tuple[bool, ...] | None = None
    steps_right: float | None = None
    tokens_per_reply: float | None = None
    unit: Unit = "examples"
    budget: float = 0.0
    examples: int | None = None
    tokens: float | None = None
    flops: float | None = None
    examples_until_solved: int | None = None
    seconds: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()
    splits: dict[str, float] = field(default_factory=dict)
    reached_goal: bool = False
    own_metrics: dict[str, float] = field(default_factory=dict)
    reason: str | None = None

    @property
    def spent(self) -> float:
        """What it spent, in the unit of its budget; 0 where that is not known."""
        amount: float | None = {"examples": self.examples, "tokens": self.tokens, "flops": self.flops}[self.unit]
        return amount or 0.0
