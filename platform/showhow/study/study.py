"""The question: one study file, checked and typed, and what it expands to. Pure; loading it starts nothing.

Where a mistake stands in the file is the business of `source.py`, and how it is worded that of `faults.py`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from showhow.errors import UserError, nearest
from showhow.fingerprint import Json, fingerprint, placeless
from showhow.machines.fitting import layout_faults
from showhow.machines.vllm import vllm_faults
from showhow.methods import AnyMethod
from showhow.methods.plain import Plain
from showhow.models.settings import model_faults
from showhow.sections.adapter import Adapter
from showhow.sections.arm import Arm
from showhow.sections.budget import Budget
from showhow.sections.data import Data, Evaluation
from showhow.sections.faults import Fault, PartOf, faults_of, models_in, refuse
from showhow.sections.recipe import ModelSpec, Recipe
from showhow.sections.resources import Checkpoints, Resources, Sharding
from showhow.sections.scalars import STRICT, Scalar
from showhow.sections.stopping import NoStopping, StopRule
from showhow.sections.trial import Trial
from showhow.study.search_space import AXIS_KINDS, Grid, SearchSpace, named_axes
from showhow.study.source import Source
from showhow.tasks import AnyTask
from showhow.tasks.explain import Level

EXPLANATION = "explanation"
# What changes no result, so that it may change when a study goes on.
NOT_COMPUTED = ("name", "question", "resources", "sharding", "checkpoints")
# The sections that a trial has, each with a point's values filled in.
_OF_A_TRIAL = {"task", "data", "model", "adapter", "method", "recipe", "evaluation", "budget"}
# Names of what else lies in the folder where each study has a folder of its name.
_TAKEN_NAMES = ("datasets", "tokenizers", "mlflow.db", "mlartifacts")
_LEVELS = [level.value for level in Level]
# No single values, so no axis sets them.
_NOT_SEARCHED = ("kind", "eval_splits", "targets", "path", "sha256")


class Study(BaseModel):
    """One question: task, data, model, recipe, search space, stop rule, seeds."""

    model_config = STRICT

    name: str
    question: Annotated[str, Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    task: AnyTask
    data: Data
    model: ModelSpec
    adapter: Adapter | None = None
    method: AnyMethod = Plain()
    recipe: Annotated[dict[str, Scalar], PartOf(Recipe)]
    budget: Budget | None = None
    search: SearchSpace
    evaluation: Evaluation = Evaluation()
    stop: StopRule = NoStopping()
    resources: Resources = Resources()
    sharding: Sharding = Sharding()
    checkpoints: Checkpoints = Checkpoints()

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
    def _axes_fit(self) -> Self:
        refuse([*self._level_faults(), *self._axis_faults(), *self._missing_from_recipe()])
        return self

    def _level_faults(self) -> Iterator[Fault]:
        axis = self.search.axes.get(EXPLANATION)
        example = 'write explanation = { grid = ["none", "short", "long"] }'
        if axis is None:
            yield Fault(f"search.{EXPLANATION}", f"is missing: {example}")
        elif not isinstance(axis, Grid):
            yield Fault(f"search.axes.{EXPLANATION}", f"levels are compared one by one: {example}")
        else:
            for level in axis.grid:
                if level not in _LEVELS:
                    hint = nearest(str(level), _LEVELS)
                    message = f"{json.dumps(level)} is not a level.{hint} Levels: {', '.join(_LEVELS)}"
                    yield Fault(f"search.axes.{EXPLANATION}", message)

    def _axis_faults(self) -> Iterator[Fault]:
        owners: dict[str, type[BaseModel]]
        owners = {"task": type(self.task), "data": Data, "model": type(self.model), "recipe": Recipe}
        owners |= {"adapter": type(self.adapter)} if self.adapter else {}
        fields = {name: [f for f in owner.model_fields if f not in _NOT_SEARCHED] for name, owner in owners.items()}
        allowed = [*fields["recipe"], *(f"{name}.{field}" for name in owners for field in fields[name])]
        for axis in self.search.axes:
            section, field = _target(axis)
            if axis != EXPLANATION and field not in fields.get(section, []):
                known = fields.get(section) or [f"{name}." for name in owners]
                hint = nearest(axis, [EXPLANATION, *allowed])
                what = f"[{section}] has" if section in fields else "an axis begins with"
                yield Fault(
                    f"search.axes.{axis}", f"nothing of this name can be searched.{hint} {what}: {', '.join(known)}"
                )
            elif section == "recipe" and field in self.recipe:
                yield _both(axis, section, field)

    def _missing_from_recipe(self) -> Iterator[Fault]:
        for name, field in Recipe.model_fields.items():
            if field.is_required() and name not in self.recipe and name not in self.search.axes:
                message = f"is missing: set {name} = ... in [recipe], or search it: [search] {name} = {{ ... }}"
                yield Fault(f"recipe.{name}", message)

    @classmethod
    def load(cls, path: str | Path, changes: Iterable[str] = (), name: str | None = None) -> "Study":
        """Read and check a study file. `changes` are typed overrides such as `data.train_examples=2000`; `name` stands
        for the file's.

        Raises UserError with file, line, what was got, what is allowed and the nearest right name."""
        source = Source.read(Path(path), changes, name)
        faults = [*source.unusable(), *source.located(), *_fill_searched(source.values)]
        _fill_defaults(source.values)
        known = {fault.key for fault in faults}
        try:
            study = cls.model_validate_json(source.as_json(), strict=True)
        except ValidationError as error:
            found = [fault for fault in faults_of(error, cls) if fault.key not in known]
            source.refuse([*faults, *_at_axes(found, _axes_of(source.values))])
            raise
        source.refuse(faults)
        source.refuse(study.faults())
        return study

    def faults(self) -> list[Fault]:
        """Say what is wrong with the trials that the grids and the bounds of the ranges can ask for."""
        lowest = {name: axis.extremes[0] for name, axis in self.search.axes.items()}
        faults = dict.fromkeys([*self._stop_faults(), *self._faults_at(lowest)])
        for name, axis in self.search.axes.items():
            for value in axis.extremes[1:]:
                new = [fault for fault in self._faults_at(lowest | {name: value}) if fault not in faults]
                # what goes wrong only with this value is a fault of this value
                faults |= dict.fromkeys(Fault(f"search.{name}", _by(value, fault, name)) for fault in new)
        if self.search.method == "random" and not faults:
            for point in self.search.points():
                faults |= dict.fromkeys(self._faults_at(point))
        return list(faults)

    def _stop_faults(self) -> Iterator[Fault]:
        needed = 0 if isinstance(self.stop, NoStopping) else self.stop.min_seeds
        if "min_seeds" in self.stop.model_fields_set and needed > len(self.seeds):
            yield Fault("stop.min_seeds", f"got {needed}, but the study has {len(self.seeds)} seeds")

    def _faults_at(self, point: dict[str, Scalar]) -> list[Fault]:
        try:
            trial = self._filled("check", point)
            found = [
                *trial.dataset_faults(),
                *model_faults(trial, self.resources.gpus_per_device),
                *layout_faults(trial, self.resources, self.sharding),
                *vllm_faults(trial, self.sharding),
            ]
        except ValidationError as error:
            found = faults_of(error, Trial)
        return _at_axes(found, point)

    def trial(self, name: str, point: dict[str, Scalar]) -> Trial:
        """Fill a point of the search space in. Raises UserError naming the field when a value is impossible."""
        try:
            return self._filled(name, point)
        except ValidationError as error:
            raise UserError("; ".join(f"{key}: {message}" for key, message in faults_of(error, Trial))) from None

    def _filled(self, name: str, point: dict[str, Scalar]) -> Trial:
        sections = self._sections
        for axis, value in point.items():
            if axis != EXPLANATION:
                section, field = _target(axis)
                sections = sections | {section: sections[section] | {field: value}}
        level = point[EXPLANATION]
        values = {"name": name, "arm": level, "setting": {}, "level": level, "point": point, **sections}
        if self.budget is None:
            values["budget"] = {"unit": "examples", "amount": sections["recipe"].get("max_examples", 1)}
        return Trial.model_validate_json(json.dumps(values), strict=True)

    @cached_property
    def _sections(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include=_OF_A_TRIAL)

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

    @property
    def by(self) -> tuple[str, ...]:
        """The axes whose values are compared."""
        return (EXPLANATION,)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What is compared, in the order of the study file."""
        return tuple(
            Arm(name=level.value, values={EXPLANATION: level.value}, is_control=level.is_control)
            for level in self.levels
        )

    @property
    def settings(self) -> tuple[dict[str, Scalar], ...]:
        """Within what arms are compared: the values of the axes named by `[compare] within`; one, empty, for none."""
        return ({},)

    def definition(self) -> dict[str, Json]:
        """Return the whole study as JSON, defaults filled in."""
        content: dict[str, Json] = self.model_dump(mode="json")
        return content

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits naming what is computed: neither the study's name nor where it runs."""
        return fingerprint({key: placeless(v) for key, v in self.definition().items() if key not in NOT_COMPUTED})


def _target(axis: str) -> tuple[str, str]:
    """Return section and field that an axis sets: `task.style`, or a bare name for a field of the recipe."""
    section, _, field = axis.rpartition(".")
    return section or "recipe", field


def _axes_of(values: dict[str, Any]) -> dict[str, Any]:
    """Return the axes of a study as written that set a field of a section which is there."""
    search = values.get("search")
    axes = dict(named_axes(search)) if isinstance(search, dict) else {}
    return {axis: written for axis, written in axes.items() if isinstance(values.get(_target(axis)[0]), dict)}


def _at_axes(faults: Iterable[Fault], axes: Iterable[str]) -> list[Fault]:
    """Place what is wrong with a searched field, or with a section that has one, at its axis."""
    places = {}
    for axis in axes:
        section, field = _target(axis)
        places[f"{section}.{field}"] = f"search.{axis}"
        if section != "recipe":
            places.setdefault(section, f"search.{axis}")
    return [Fault(places.get(key, key), message) for key, message in faults]


def _fill_searched(values: dict[str, Any]) -> Iterator[Fault]:
    """A field that is searched need not be set as well: let it be the first value of its axis. Yields those that are
    set nevertheless, for it would not be clear which holds."""
    for axis, written in _axes_of(values).items():
        section, field = _target(axis)
        table = values[section]
        owners = (
            models_in(Study.model_fields[section].annotation) if section in ("task", "data", "model", "adapter") else []
        )
        if field in _NOT_SEARCHED or not any(field in owner.model_fields for owner in owners):
            continue
        if field in table:
            yield _both(axis, section, field)
        firsts = [written[kind] for kind in AXIS_KINDS if kind in written] if isinstance(written, dict) else []
        if firsts and isinstance(firsts[0], list) and firsts[0]:
            values[section] = {field: firsts[0][0], **table}


def _fill_defaults(values: dict[str, Any]) -> None:
    """Let the recipe say all that it leaves to defaults: what is stored must mean the same when they change."""
    recipe, searched = values.get("recipe"), _axes_of(values)
    if isinstance(recipe, dict):
        defaults = {name: field.default for name, field in Recipe.model_fields.items() if not field.is_required()}
        unsaid = {name: value for name, value in defaults.items() if name not in searched and value is not None}
        values["recipe"] = {**unsaid, **recipe}


def _both(axis: str, section: str, field: str) -> Fault:
    return Fault(f"search.{axis}", f"{field} is both searched and set in [{section}]; remove one of them")


def _by(value: Scalar, fault: Fault, axis: str) -> str:
    return fault.message if fault.key == f"search.{axis}" else f"with {json.dumps(value)}: {fault.message}"
