"""A study: one study file, checked and typed, and what it expands to. Pure; loading it starts nothing.

`source.py` finds the line of an error in the file, and `faults.py` words the error.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from showhow.errors import UserError
from showhow.fingerprint import Json, fingerprint, placeless
from showhow.methods import AnyMethods
from showhow.methods.plain import Plain
from showhow.sections.adapter import Adapters
from showhow.sections.arm import Arm
from showhow.sections.budget import Budget
from showhow.sections.compare import Compare
from showhow.sections.data import Data, Evaluation
from showhow.sections.faults import Fault, PartOf, faults_of, refuse
from showhow.sections.recipe import ModelSpecs, Recipe
from showhow.sections.resources import Checkpoints, Resources, Sharding
from showhow.sections.scalars import FROM_LIST, STRICT, Scalar
from showhow.sections.stopping import NoStopping, StopRule
from showhow.sections.trial import Trial
from showhow.study.arms import Values, combinations, names_of, within_of
from showhow.study.checks import section_faults, stop_faults, trial_faults
from showhow.study.filling import at_axes, filled, unfilled
from showhow.study.points import picked_at, sections_at
from showhow.study.search_space import SearchSpace, applying
from showhow.study.source import Source
from showhow.study.variants import EXPLANATION, axes_of, table_of, target
from showhow.tasks import AnyTasks
from showhow.tasks.explain import Level

# What changes no result, so it may change when a study is resumed.
NOT_COMPUTED = ("name", "question", "resources", "sharding", "checkpoints")
# The sections that a trial has, each with a point's values filled in.
_OF_A_TRIAL = {"task", "data", "model", "adapter", "method", "recipe", "evaluation", "budget"}
# Names of other things in the folder of all studies.
_TAKEN_NAMES = ("datasets", "tokenizers", "mlflow.db", "mlartifacts")


class Study(BaseModel):
    """One question: task, data, model, recipe, search space, what is compared, stop rule, seeds. task, model, adapter
    and method may have several named variants; each trial has the one that its point picks."""

    model_config = STRICT

    name: str
    question: Annotated[str, Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), FROM_LIST]
    task: AnyTasks
    data: Data
    model: ModelSpecs
    adapter: Adapters | None = None
    method: AnyMethods = Plain()
    recipe: Annotated[dict[str, Scalar], PartOf(Recipe)]
    budget: Budget | None = None
    search: SearchSpace
    compare: Compare = Compare()
    evaluation: Evaluation = Evaluation()
    stop: StopRule = NoStopping()
    resources: Resources = Resources()
    sharding: Sharding = Sharding()
    checkpoints: Checkpoints = Checkpoints()

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any, info: ValidationInfo) -> Any:
        """Fill in what is omitted. If the context is a list, faults are added to it, to be reported together with those
        of the sections."""
        if not isinstance(values, dict):
            return values
        complete, faults = filled(values)
        if isinstance(info.context, list):
            info.context.extend(faults)
        else:
            refuse(faults)
        return complete

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name in _TAKEN_NAMES:
            raise ValueError(
                f'got "{name}", but a study is named with 1 to 100 letters, digits and . _ -, the first a letter or a '
                f"digit, and not {', '.join(_TAKEN_NAMES)}"
            )
        return name

    @field_validator("seeds")
    @classmethod
    def _no_repeats(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is named twice; equal seeds give equal runs")
        return seeds

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        refuse(section_faults(self))
        return self

    @classmethod
    def load(cls, path: str | Path, changes: Iterable[str] = (), name: str | None = None) -> "Study":
        """Read and check a study file. `changes` are typed overrides such as `data.train_examples=2000`; `name`
        replaces the file's.

        Raises UserError with file, line, the value found, what is allowed and the nearest valid name."""
        return cls._read(Source.read(Path(path), changes, name))

    @classmethod
    def of(cls, **sections: Any) -> "Study":
        """Make a study from its sections, with the checks and defaults of a file: tables, or instances of tasks,
        methods, models and the like. Paths are relative to the working directory.

        Raises UserError with the key, the value found, what is allowed and the nearest valid name."""
        return cls._read(Source.of("Study.of", sections))

    def with_changes(self, changes: Mapping[str, Any]) -> "Study":
        """Return the study with some settings changed, by dotted names such as `recipe.batch_size` and
        `search.learning_rate`; None leaves a setting out. Raises UserError as `of` does."""
        source = Source.of("Study.with_changes", self.definition())
        return self._read(source.changed(changes))

    @classmethod
    def _read(cls, source: Source) -> "Study":
        faults = [*source.unusable(), *source.located()]
        filling: list[Fault] = []
        try:
            study = cls.model_validate_json(source.as_json(), strict=True, context=filling)
        except ValidationError as error:
            faults += filling
            known = {fault.key for fault in faults}
            found = [fault for fault in faults_of(error, cls) if fault.key not in known]
            axes = axes_of(source.values)
            source.refuse(
                [*faults, *at_axes(found, [a for a in axes if table_of(source.values, target(a)) is not None])]
            )
            raise
        source.refuse([*faults, *filling])
        source.refuse(study.faults())
        return study

    def check(self) -> None:
        """Raise UserError with all faults of the study's trials. `load` and `of` have checked them; the constructor has
        not."""
        if faults := self.faults():
            raise UserError("\n".join(f"study {self.name}: {key}: {message}" for key, message in faults))

    def faults(self) -> list[Fault]:
        """Return the faults of the trials at all values of the grids and bounds of the ranges."""
        return list(self._faults)

    @cached_property
    def _faults(self) -> tuple[Fault, ...]:
        lowest = {name: axis.extremes[0] for name, axis in self.search.axes.items()}
        faults = dict.fromkeys([*stop_faults(self), *self._faults_at(lowest)])
        for name in sorted(self.search.axes, key=lambda axis: bool(target(axis).variant)):  # variants first
            section, variant, _ = target(name)
            picked = {section: variant} if variant else {}
            for value in self.search.axes[name].extremes:
                if picked or value != lowest[name]:
                    new = [fault for fault in self._faults_at(lowest | picked | {name: value}) if fault not in faults]
                    # found only with this value: a fault of this value
                    faults |= dict.fromkeys(_of_value(fault, name, value) for fault in new)
        if self.search.algorithm == "random" and not faults:
            for point in self.search.points():
                faults |= dict.fromkeys(self._faults_at(point))
        return tuple(faults)

    def _faults_at(self, point: Values) -> list[Fault]:
        point = applying(point)
        try:
            found = list(trial_faults(self, self._filled("check", point)))
        except ValidationError as error:
            found = faults_of(error, Trial)
        if self.budget is not None:
            found = [Fault(key.replace("recipe.max_examples", "budget.amount"), message) for key, message in found]
        return at_axes(found, point, picked_at(point))

    def trial(self, name: str, point: dict[str, Scalar]) -> Trial:
        """Return the trial of a point. Raises UserError naming the field when a value is impossible."""
        try:
            return self._filled(name, point)
        except ValidationError as error:
            raise UserError("; ".join(f"{key}: {message}" for key, message in faults_of(error, Trial))) from None

    def _filled(self, name: str, point: dict[str, Scalar]) -> Trial:
        values = {
            "name": name,
            "arm": self._arm_of(point),
            "setting": {axis: point[axis] for axis in self.within if axis in point},
            "level": point.get(EXPLANATION, self.data.explanation),
            "point": point,
            **sections_at(point, self._sections),
        }
        return Trial.model_validate_json(json.dumps(values), strict=True)

    @cached_property
    def _sections(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include=_OF_A_TRIAL)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """The trials of a random or grid search, in the order in which they should start. With optuna each arm's trials
        are named the same way and their points are chosen while the study runs."""
        return tuple(self.trial(self.trial_name(index), point) for index, point in enumerate(self.search.points()))

    @staticmethod
    def trial_name(index: int) -> str:
        """Return the name of the index-th trial."""
        return f"trial-{index:03d}"

    @property
    def levels(self) -> tuple[Level, ...]:
        """The explanation levels of the trials, in the order of the study file."""
        if self.data.explanation is not None:
            return (self.data.explanation,)
        return tuple(Level(str(value)) for value in self.search.axes[EXPLANATION].extremes)

    @property
    def by(self) -> tuple[str, ...]:
        """The axes whose values are compared."""
        return self.compare.by

    @cached_property
    def within(self) -> tuple[str, ...]:
        """The axes at each of whose values arms are compared separately."""
        return within_of(self.search, self.compare)

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The compared arms, in the order of the study file."""
        return tuple(
            Arm(name=self._arm_of(values), values=values, is_control=self._is_control(values))
            for values in combinations(self.search, self.by)
        )

    @cached_property
    def settings(self) -> tuple[dict[str, Scalar], ...]:
        """Where arms are compared: values of the axes that `within` names; one, empty, for none."""
        return combinations(self.search, self.within)

    @cached_property
    def _arm_names(self) -> dict[str, str]:
        arms = combinations(self.search, self.by)
        return {json.dumps(values): name for values, name in zip(arms, names_of(arms), strict=True)}

    def _arm_of(self, point: Mapping[str, Scalar]) -> str:
        """Return the name of a point's arm; a point with values beyond its axes gets its own."""
        values = {axis: point[axis] for axis in self.by if axis in point}
        return self._arm_names.get(json.dumps(values)) or names_of([values])[0]

    def _is_control(self, arm: Values) -> bool:
        """Return whether the common level or the common method of an arm's trials makes them controls."""
        lowest = {name: axis.extremes[0] for name, axis in self.search.axes.items()}
        trial = self._filled("arm", applying(lowest | arm))
        is_same = {axis: axis in arm or axis not in self.search.axes for axis in (EXPLANATION, "method")}
        return (is_same[EXPLANATION] and trial.level.is_control) or (is_same["method"] and trial.method.is_control)

    def definition(self) -> dict[str, Json]:
        """Return the complete study as JSON, with defaults, as `of` takes it."""
        content: dict[str, Json] = unfilled(self.model_dump(mode="json"), self.search.axes)
        return content

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify what is computed, without the study's name or where it runs."""
        return fingerprint({key: placeless(v) for key, v in self.definition().items() if key not in NOT_COMPUTED})


def _of_value(fault: Fault, axis: str, value: Scalar) -> Fault:
    """Move a fault of one of an axis's values to the axis, unless it is a fault of the variant that the axis picks."""
    if fault.key == f"search.{axis}" or fault.key.startswith(f"{axis}.{value}"):
        return fault
    setting = f", {fault.key}" if fault.message.startswith("got ") else ""  # other messages name their setting
    return Fault(f"search.{axis}", f"with {json.dumps(value)}{setting}: {fault.message}")
