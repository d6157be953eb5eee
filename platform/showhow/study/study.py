"""The question: one study file, checked and typed, and what it expands to. Pure; loading it starts nothing.

What a mistake in the file looks like to its author is the business of `source.py`.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from showhow.errors import UserError, nearest
from showhow.fingerprint import Json, fingerprint
from showhow.metrics import TEST, VALIDATION
from showhow.study.dataset_spec import TRAIN, DatasetSpec
from showhow.study.recipe import STRICT, ModelSpec, Positive, Recipe, Share
from showhow.study.search_space import Scalar, SearchSpace
from showhow.study.source import Source
from showhow.study.stopping import NoStopping, StopRule
from showhow.tasks import AnyTask
from showhow.tasks.explain import Level

EXPLANATION = "explanation"


class Data(BaseModel):
    """The `[data]` section. eval_examples: questions in validation, in test and in each of eval_splits, which are
    variants of the task (`eval_splits.longer = { terms = 10 }`). max_tokens: longest prompt with target that a model is
    shown; longer rows are dropped and counted, and more than max_dropped_share of them is an error. control_length: the
    level whose length the controls `shuffled` and `filler` have."""

    model_config = STRICT

    train_examples: Positive
    eval_examples: Positive
    seed: Annotated[int, Field(ge=0)] = 0
    eval_splits: dict[str, dict[str, Scalar]] = {}
    max_tokens: Positive = 1024
    max_dropped_share: Share = 0.01
    control_length: Level = Level.LONG

    @field_validator("eval_splits")
    @classmethod
    def _split_names(cls, splits: dict[str, Any]) -> dict[str, Any]:
        for name in splits:
            if name in (TRAIN, VALIDATION, TEST) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f'a split cannot be named "{name}": use small letters, not train, validation or test')
        return splits

    @field_validator("control_length")
    @classmethod
    def _explains(cls, level: Level) -> Level:
        if not level.has_steps:
            raise ValueError(f'"{level}" has no length to copy; allowed are short, medium and long')
        return level


class Evaluation(BaseModel):
    """The `[evaluation]` section, which bounds what evaluation costs. every_examples: training examples between
    evaluations (default: a twentieth of max_examples); validation_examples: questions asked each time (default: at most
    200 of eval_examples); all of test and of the further splits are asked once, at the end. solved_accuracy: a run at
    or above it has solved the task."""

    model_config = STRICT

    every_examples: Positive | None = None
    validation_examples: Positive | None = None
    batch_size: Positive = 256
    solved_accuracy: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95


class Resources(BaseModel):
    """The `[resources]` section: what one trial holds while it runs. It does not change results, so it may be changed
    when a study is continued."""

    model_config = STRICT

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float, Field(ge=0.0)] = 0.0
    max_concurrent: Positive | None = None


class Trial(BaseModel):
    """One point of the search space with everything it sets filled in."""

    model_config = STRICT

    name: str
    level: Level
    point: dict[str, Scalar]
    task: AnyTask
    data: Data
    model: ModelSpec
    recipe: Recipe
    evaluation: Evaluation

    def dataset(self, split: str) -> DatasetSpec:
        """Return the dataset of a split: `train`, `validation`, `test` or one of eval_splits."""
        task = self.task.changed(self.data.eval_splits[split]) if split in self.data.eval_splits else self.task
        return DatasetSpec(
            task=task,
            level=self.level,
            split=split,
            examples=self.data.train_examples if split == TRAIN else self.data.eval_examples,
            seed=self.data.seed,
            control_length=self.data.control_length,
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits, train first."""
        return (TRAIN, VALIDATION, TEST, *self.data.eval_splits)

    @property
    def evaluate_every(self) -> int:
        """Training examples between two evaluations."""
        return self.evaluation.every_examples or max(self.recipe.batch_size, self.recipe.max_examples // 20)

    @property
    def validation_examples(self) -> int:
        """Questions asked at each evaluation during training."""
        return min(self.evaluation.validation_examples or 200, self.data.eval_examples)


class Study(BaseModel):
    """One question: task, data, model, recipe, search space, stop rule, seeds."""

    model_config = STRICT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    question: Annotated[str, Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    task: AnyTask
    data: Data
    model: ModelSpec
    recipe: dict[str, Scalar]
    search: SearchSpace
    evaluation: Evaluation = Evaluation()
    stop: StopRule = NoStopping()
    resources: Resources = Resources()

    @field_validator("seeds")
    @classmethod
    def _no_repeats(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is named twice; equal seeds give equal runs")
        return seeds

    @model_validator(mode="after")
    def _levels_are_searched(self) -> Self:
        axis = self.search.axes.get(EXPLANATION)
        levels = axis.extremes if axis else ()
        allowed = [level.value for level in Level]
        for level in levels:
            if level not in allowed:
                raise ValueError(f"search.explanation: {level!r} is not a level; levels: {', '.join(allowed)}")
        if not levels:
            raise ValueError('search.explanation is missing: write explanation = { grid = ["none", "short", "long"] }')
        return self

    @classmethod
    def load(cls, path: str | Path, changes: Iterable[str] = ()) -> "Study":
        """Read and check a study file. `changes` are typed overrides such as `data.train_examples=2000`.

        Raises UserError with file, line, what was got, what is allowed and the nearest right name."""
        source = Source.read(Path(path), changes)
        try:
            study = cls.model_validate_json(source.as_json(), strict=True)
        except ValidationError as error:
            raise source.explain(error, cls) from None
        try:
            study.check_points()
        except _PointError as error:
            raise source.fault(error.axis, str(error)) from None
        return study

    def check_points(self) -> None:
        """Build every trial that the grids and the bounds of the ranges can ask for. Raises UserError naming the
        axis."""
        self.trial("check", self._lowest)
        for name, axis in self.search.axes.items():
            for value in axis.extremes:
                self.trial("check", self._lowest | {name: value})
        if self.search.method == "random":
            for trial in self.trials:
                self._check_trial(trial)

    @cached_property
    def _lowest(self) -> dict[str, Scalar]:
        return {name: axis.extremes[0] for name, axis in self.search.axes.items()}

    def _check_trial(self, trial: Trial) -> None:
        try:
            specs = [trial.dataset(split) for split in trial.splits]
        except (ValidationError, ValueError) as error:
            raise _PointError("data.eval_splits", _first_message(error)) from None
        for spec in specs:
            possible = spec.task.distinct_questions
            share = len(spec.buckets) / 100
            if possible is not None and spec.examples > possible * share:
                raise _PointError(
                    "data.train_examples" if spec.split == TRAIN else "data.eval_examples",
                    f"{spec.examples:,} different questions asked of the {spec.split} split, but this task has "
                    f"{possible:,} in all and {share:.0%} of them belong to that split; "
                    "ask for fewer or make the task larger",
                )

    def trial(self, name: str, point: dict[str, Scalar]) -> Trial:
        """Fill a point of the search space in. Raises UserError naming the axis when a value is impossible."""
        sections: dict[str, dict[str, Any]] = {
            "task": self.task.model_dump(),
            "data": self.data.model_dump(mode="json"),
            "model": self.model.model_dump(),
            "recipe": dict(self.recipe),
        }
        for axis, value in point.items():
            if axis == EXPLANATION:
                continue
            section, _, field = axis.rpartition(".") if "." in axis else ("recipe", "", axis)
            if section not in sections:
                raise _PointError(f"search.{axis}", f'there is no section "{section}" to search in; {_ALLOWED_AXES}')
            if axis.startswith("recipe.") or "." not in axis:
                self._known_axis(axis, field)
            sections[section][field] = value
        try:
            return Trial.model_validate(
                {"name": name, "level": Level(str(point[EXPLANATION])), "point": point, **sections}
                | {"evaluation": self.evaluation.model_dump()},
            )
        except ValidationError as error:
            location = ".".join(str(part) for part in error.errors()[0]["loc"] if part not in _TAGS)
            raise _PointError(_axis_or_field(location, point), _first_message(error)) from None

    def _known_axis(self, axis: str, field: str) -> None:
        if field not in Recipe.model_fields:
            hint = nearest(field, [*Recipe.model_fields, EXPLANATION])
            raise _PointError(f"search.{axis}", f"no recipe field has this name.{hint} {_ALLOWED_AXES}")
        if field in self.recipe:
            raise _PointError(f"search.{axis}", f"{field} is both searched and set in [recipe]; remove one of them")

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """The trials of a random or grid search, in the order in which they should start. With optuna each level's
        trials are named likewise and their points are chosen while the study runs."""
        return tuple(self.trial(self.trial_name(index), point) for index, point in enumerate(self.search.points()))

    @staticmethod
    def trial_name(index: int) -> str:
        """Return the name of the index-th trial."""
        return f"trial-{index:03d}"

    @property
    def levels(self) -> tuple[Level, ...]:
        """The explanation levels compared, in the order of the study file."""
        return tuple(Level(str(value)) for value in self.search.axes[EXPLANATION].extremes)

    def definition(self) -> dict[str, Json]:
        """Return the whole study as JSON, defaults filled in."""
        content: dict[str, Json] = self.model_dump(mode="json")
        return content

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits naming what is computed: neither the study's name nor where it runs."""
        skipped = ("name", "question", "resources")
        return fingerprint({key: value for key, value in self.definition().items() if key not in skipped})


class _PointError(UserError):
    """A value of an axis that cannot be; `axis` is where in the study file it stands."""

    def __init__(self, axis: str, message: str) -> None:
        super().__init__(message)
        self.axis = axis


_TAGS = ("scratch", "pretrained", "modular_sum", "listops")
_ALLOWED_AXES = "An axis is explanation, a recipe field, or a dotted field such as task.style or model.hidden_size"


def _axis_or_field(location: str, point: dict[str, Scalar]) -> str:
    bare = location.removeprefix("recipe.")
    return f"search.{bare}" if bare in point else f"search.{location}" if location in point else location


def _first_message(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return str(error)
