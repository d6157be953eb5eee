"""The answer of a study as data: a row per arm, the pairwise comparisons, the conclusion. JSON by pydantic; pure.

`StudyResult.model_dump_json()` and `StudyResult.model_validate_json(text)` are inverse to each other.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from showhow.methods.bench import Unit

Verdict = Literal["better", "worse", "same", "unclear"]
SpeedVerdict = Literal["faster", "slower", "unclear"]

OPPOSITE: dict[Verdict, Verdict] = {"better": "worse", "worse": "better", "same": "same", "unclear": "unclear"}

Setting = dict[str, JsonValue]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(_Frozen):
    """A mean and its 95% interval; `low` and `high` are None where one seed leaves nothing to resample."""

    mean: float
    low: float | None
    high: float | None


class ArmRow(_Frozen):
    """One arm in one setting, represented by its best trial; the counts of runs are over all its trials there.

    values: of the compared axes; setting: of those within which they are compared, empty where there is only one
    setting.
    trial: None where no trial of the arm is complete; then every figure of the trial is None or empty.
    seeds, accuracies, examples, examples_until_solved: one entry per compared run, by seed; examples are those seen
    in total, and None in the last means never. Both are empty where not recorded.
    failed_seeds: seeds of the best trial that failed and are missing from its figures (survivors only: read with
    care).
    learned: runs whose accuracy is nearer to the solved mark than to guessing; solved: runs at or above the
    mark.
    tokens, flops, seconds: spent per run, mean. stopped: runs that a stop rule ended before they were comparable.
    at_chance: no run learned, and the interval reaches down to guessing.
    """

    arm: str
    is_control: bool
    values: dict[str, JsonValue] = {}
    setting: Setting = {}
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
    tokens: float | None = None
    flops: float | None = None
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
    """Two arms' accuracies in one setting. `difference` is first minus second; `verdict` is about the first.

    p_value: Welch over seeds; p_adjusted: Holm over all pairs of the setting. p_learned: the exact test on how many
    runs learned, closed over all arms; None where both arms learned equally often. seeds: the fewer of the two.
    seeds_needed: seeds per arm that would show a difference as large as the one observed; None where that is more than
    100 or not needed.
    """

    first: str
    second: str
    setting: Setting = {}
    difference: Estimate
    p_value: float | None
    p_adjusted: float | None
    p_learned: float | None
    verdict: Verdict
    seeds: int
    seeds_needed: int | None


class SpeedComparison(_Frozen):
    """Two equally good arms in one setting: which needs fewer examples to solve the task. `verdict` is about the
    first."""

    first: str
    second: str
    setting: Setting = {}
    p_value: float
    p_adjusted: float
    verdict: SpeedVerdict
    seeds: int
    seeds_needed: int | None


class Recommendation(_Frozen):
    """The arm that the evidence supports in a setting, and the trial that reached it."""

    arm: str
    setting: Setting = {}
    trial: str
    params: dict[str, JsonValue]


class StudyResult(_Frozen):
    """All that a study found. chance: share right by uniform guessing; baseline: by always giving the commonest
    answer, None where that is not known.

    margin: accuracies that differ by less are the same for practical purposes. by: the axes whose values the arms are.
    settings: those within which arms are compared, in order; rows, comparisons, speed and recommendations come setting
    by setting, and nothing is claimed across settings. unit: of the budget, equal for all arms. shows_spending: whether
    the table shows what was spent. budget_saved: share of the total budget, in that unit and over all seeds of all
    trials, that goals and early stopping saved. conclusion: plain sentences, grouped by setting. recommendations: at
    most one per setting. notes: caveats about the source of the figures.
    """

    chance: float
    baseline: float | None
    solved_at: float
    margin: float
    by: tuple[str, ...] = ("explanation",)
    settings: tuple[Setting, ...] = ({},)
    unit: Unit = "examples"
    shows_spending: bool = False
    rows: tuple[ArmRow, ...]
    comparisons: tuple[Comparison, ...]
    speed: tuple[SpeedComparison, ...]
    budget_saved: float
    conclusion: tuple[str, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def guessing(self) -> float:
        """The better of the two ways to guess: what an accuracy must exceed to mean anything."""
        return max(self.chance, self.baseline or 0.0)

    @property
    def has_settings(self) -> bool:
        """True where arms are compared within more than one setting."""
        return len(self.settings) > 1

    @property
    def compared(self) -> tuple[ArmRow, ...]:
        """The rows that have a trial to compare."""
        return tuple(row for row in self.rows if row.accuracy is not None)

    @property
    def recommend(self) -> Recommendation | None:
        """The recommendation of a study with one setting; None where nothing is supported or there are several."""
        return self.recommendations[0] if self.recommendations and not self.has_settings else None

    def within(self, setting: Setting) -> "StudyResult":
        """Return the findings in one setting, as the result of a study that has no other."""
        return self.model_copy(
            update={
                "settings": (setting,),
                "rows": tuple(row for row in self.rows if row.setting == setting),
                "comparisons": tuple(found for found in self.comparisons if found.setting == setting),
                "speed": tuple(found for found in self.speed if found.setting == setting),
                "recommendations": tuple(found for found in self.recommendations if found.setting == setting),
            }
        )

    def row(self, arm: str, setting: Setting | None = None) -> ArmRow:
        """Return an arm's row. Raises KeyError for an arm that the study does not have, and where it has several
        settings and none is given."""
        found = [row for row in self.rows if row.arm == arm and setting in (None, row.setting)]
        if len(found) != 1:
            raise KeyError(f"{arm}: {len(found)} rows; arms and settings: {[(r.arm, r.setting) for r in self.rows]}")
        return found[0]

    def between(self, first: str, second: str, setting: Setting | None = None) -> Comparison:
        """Return the comparison of two arms, in either order. Raises KeyError where there is none, and where
        there are several settings and none is given."""
        pair = {first, second}
        found = [one for one in self.comparisons if {one.first, one.second} == pair and setting in (None, one.setting)]
        if len(found) != 1:
            raise KeyError(f"{first} and {second} have {len(found)} comparisons")
        return found[0]

    def verdict(self, first: str, second: str, setting: Setting | None = None) -> Verdict:
        """Return the verdict on `first` against `second`. Raises KeyError as `between` does."""
        found = self.between(first, second, setting)
        return found.verdict if found.first == first else OPPOSITE[found.verdict]
