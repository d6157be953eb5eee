"""What one run contributes to the answer: the typed input of the comparison. Pure."""

from dataclasses import dataclass, field

from showhow.fingerprint import Json


@dataclass(frozen=True)
class RunOutcome:
    """How one run (a trial with one seed) ended.

    level: the explanation level it was trained at; trial: name of its point of the search space; params: that point.
    status: finished, stopped, failed or interrupted; stopped_by: the stop rule's name where one ended it.
    selection: last validation accuracy, by which the best trial of a level is chosen (never the test accuracy); None if
    it was never evaluated.
    grades: for each test question, in the dataset's order, whether the answer was right; None unless the run used up
    its budget or solved the task, since only such runs may be compared.
    curve: (examples seen, validation accuracy) pairs, in order.
    splits: accuracy on each further evaluation split.
    """

    level: str
    trial: str
    seed: int
    params: dict[str, Json]
    status: str
    stopped_by: str | None = None
    selection: float | None = None
    grades: tuple[bool, ...] | None = None
    steps_right: float | None = None
    tokens_per_reply: float | None = None
    examples: int = 0
    budget_examples: int = 0
    examples_until_solved: int | None = None
    seconds: float = 0.0
    curve: tuple[tuple[int, float], ...] = ()
    splits: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
