"""The answer of a study as data: a row per level, the pairwise comparisons, the conclusion. JSON by pydantic; pure.

`StudyResult.model_dump_json()` and `StudyResult.model_validate_json(text)` are inverse to each other.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

Verdict = Literal["better", "worse", "same", "unclear"]
SpeedVerdict = Literal["faster", "slower", "unclear"]

OPPOSITE: dict[Verdict, Verdict] = {"better": "worse", "worse": "better", "same": "same", "unclear": "unclear"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(_Frozen):
    """A mean and its 95% interval; `low` and `high` are None where one seed leaves nothing to resample."""

    mean: float
    low: float | None
    high: float | None


class LevelRow(_Frozen):
    """One level, shown by its best trial; the counts of runs are over all trials of the level.

    setting: what of the model, the task or the data the trials had in common, where the row is of these alone; empty
    in the row of a level as a whole.

    trial: None where no trial of the level is complete; then every figure of the trial is None or empty.
    seeds, accuracies, examples, examples_until_solved: one entry per compared run, by seed; examples are those seen
    in all, and None in the last means never.
    failed_seeds: seeds of the best trial that failed and are missing from its figures (survivors only: read with
    care).
    learned: runs of which the accuracy lies nearer to the solved mark than to guessing; solved: runs at or above the
    mark.
    seconds: wall time per run, mean. stopped: runs that a stop rule ended before they were comparable.
    at_chance: no run learned, and the interval reaches down to what guessing gives.
    """

    level: str
    is_control: bool
    setting: dict[str, JsonValue] = {}
    trial: str | None = None
    params: dict[str, JsonValue] = {}
    seeds: tuple[int, ...] = ()
    failed_seeds: tuple[int, ...] = ()
    questions: int = 0
    accuracy: Estimate | None = None
    accuracies: tuple[float, ...] = ()
    solved: int | None = None
    learned: int | None = None
    steps_right: float | None = None
    examples: tuple[int, ...] = ()
    examples_until_solved: tuple[int | None, ...] = ()
    tokens_per_reply: float | None = None
    seconds: float | None = None
    splits: dict[str, Estimate] = {}
    at_chance: bool | None = None
    runs: int
    stopped: int
    failed: int
    interrupted: int
    failure: str | None = None


class Comparison(_Frozen):
    """Two levels' accuracies. `difference` is first minus second; `verdict` is about the first.

    p_value: Welch over seeds; p_adjusted: Holm over all pairs. p_learned: the exact test on how many runs learned,
    closed over all levels; None where both levels learned equally often. seeds: the fewer of the two. seeds_needed:
    seeds per level that would show a difference as large as the one observed; None where that is more than 100 or no
    question.
    """

    first: str
    second: str
    difference: Estimate
    p_value: float | None
    p_adjusted: float | None
    p_learned: float | None
    verdict: Verdict
    seeds: int
    seeds_needed: int | None


class SpeedComparison(_Frozen):
    """Two levels that are equally good: which needs fewer examples until it has solved the task; about the first."""

    first: str
    second: str
    p_value: float
    p_adjusted: float
    verdict: SpeedVerdict
    seeds: int
    seeds_needed: int | None


class Recommendation(_Frozen):
    """The level that the evidence supports, and the trial that reached it."""

    level: str
    trial: str
    params: dict[str, JsonValue]


class StudyResult(_Frozen):
    """All that a study found. chance: share right by uniform guessing; baseline: by always giving the commonest
    answer.

    by_setting: where the study compares models, tasks or data too, a row for each of them and each level; claims are
    made of `rows` only.
    margin: accuracies that differ by less are the same for practical purposes. examples_saved: share of the whole
    budget, all seeds of all trials, that goals and early stopping spared. conclusion: plain sentences. recommend: None
    where nothing is supported.
    """

    chance: float
    baseline: float
    solved_at: float
    margin: float
    rows: tuple[LevelRow, ...]
    by_setting: tuple[LevelRow, ...] = ()
    comparisons: tuple[Comparison, ...]
    speed: tuple[SpeedComparison, ...]
    examples_saved: float
    conclusion: tuple[str, ...] = ()
    recommend: Recommendation | None = None

    @property
    def guessing(self) -> float:
        """The better of the two ways to guess: what an accuracy must exceed to mean anything."""
        return max(self.chance, self.baseline)

    @property
    def compared(self) -> tuple[LevelRow, ...]:
        """The rows that have a trial to compare."""
        return tuple(row for row in self.rows if row.accuracy is not None)

    def row(self, level: str) -> LevelRow:
        """Return a level's row. Raises KeyError for a level that the study does not have."""
        for row in self.rows:
            if row.level == level:
                return row
        raise KeyError(level)

    def between(self, first: str, second: str) -> Comparison:
        """Return the comparison of two levels, whichever way round it is stored. Raises KeyError where there is
        none."""
        for found in self.comparisons:
            if {found.first, found.second} == {first, second}:
                return found
        raise KeyError(f"{first} and {second} were not compared")

    def verdict(self, first: str, second: str) -> Verdict:
        """Return what was found about `first` beside `second`. Raises KeyError where they were not compared."""
        found = self.between(first, second)
        return found.verdict if found.first == first else OPPOSITE[found.verdict]
