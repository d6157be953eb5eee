"""Checks the parts of a study against each other (axes, levels, budget), and its trials one by one. Pure."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel

from showhow.errors import nearest
from showhow.machines.budget import budget_faults, planned_examples
from showhow.machines.fitting import layout_faults
from showhow.machines.vllm import vllm_faults
from showhow.methods.base import Setup
from showhow.models.settings import model_faults
from showhow.models.sizes import sizes_of
from showhow.sections.faults import Fault
from showhow.sections.recipe import Recipe, ScratchModel
from showhow.sections.stopping import NoStopping
from showhow.sections.trial import Trial
from showhow.study.arms import compare_faults
from showhow.study.filling import both
from showhow.study.search_space import Grid
from showhow.study.variants import EXPLANATION, NOT_SEARCHED, VARIED, alike_faults, target, variant_faults
from showhow.tasks.breaches import task_breach
from showhow.tasks.explain import Level

if TYPE_CHECKING:
    from showhow.study.study import Study

_LEVELS = [level.value for level in Level]
_LEVEL_GRID = 'explanation = { grid = ["none", "short", "long"] }'


def section_faults(study: "Study") -> Iterator[Fault]:
    """Find contradictions between the sections of a study, before its trials are checked."""
    yield from _level_faults(study)
    yield from _axis_faults(study)
    for section in VARIED:
        is_set = section in study.model_fields_set
        yield from variant_faults(section, getattr(study, section), study.search.axes.get(section), is_set)
        yield from alike_faults(section, getattr(study, section), study.search.axes)
    yield from _recipe_faults(study)
    levels_are_missing = EXPLANATION not in study.search.axes  # which is already reported
    for fault in compare_faults(study.search, study.compare):
        if not (levels_are_missing and fault.message.startswith(f'"{EXPLANATION}"')):
            yield fault
    yield from _optuna_faults(study)


def _level_faults(study: "Study") -> Iterator[Fault]:
    axis, level = study.search.axes.get(EXPLANATION), study.data.explanation
    if axis is None:
        yield from _single_level_faults(study)
        return
    if level is not None:
        yield Fault(f"search.{EXPLANATION}", f"{EXPLANATION} is both searched and set in [data]; remove one of them")
    if not isinstance(axis, Grid):
        yield Fault(f"search.{EXPLANATION}", f"levels are compared one by one: write {_LEVEL_GRID}")
        return
    for value in axis.grid:
        if value not in _LEVELS:
            hint = nearest(str(value), _LEVELS)
            message = f"{json.dumps(value)} is not a level.{hint} Levels: {', '.join(_LEVELS)}"
            yield Fault(f"search.{EXPLANATION}", message)


def _single_level_faults(study: "Study") -> Iterator[Fault]:
    one = f'[data] {EXPLANATION} = "long"'
    if EXPLANATION in study.compare.by + (study.compare.within or ()):
        if study.data.explanation is None:
            message = f"is missing: write {_LEVEL_GRID}; or {one}, and what else is compared, such as [compare] by = "
            yield Fault(f"search.{EXPLANATION}", message + '["method"]')
        else:
            message = f"sets one level for all trials, but the study compares by it; search it, {_LEVEL_GRID}, or name "
            yield Fault(f"data.{EXPLANATION}", message + 'what is compared, such as [compare] by = ["method"]')
    elif study.data.explanation is None:
        yield Fault(f"search.{EXPLANATION}", f"is missing: write {one}, one level for all, or search it: {_LEVEL_GRID}")


def _axis_faults(study: "Study") -> Iterator[Fault]:
    owners = _owners(study)
    fields = {name: [f for f in owner.model_fields if f not in NOT_SEARCHED] for name, owner in owners.items()}
    allowed = [*fields["recipe"], *(f"{name}.{field}" for name in owners for field in fields[name])]
    for axis in study.search.axes:
        place = target(axis)
        if axis == EXPLANATION or not place.field:
            continue
        if place.field not in fields.get(place.table, []):
            known = fields.get(place.table) or [f"{name}." for name in owners]
            hint = nearest(axis, [EXPLANATION, *VARIED, *allowed])
            what = f"[{place.table}] has" if place.table in fields else "an axis begins with"
            yield Fault(f"search.{axis}", f"nothing of this name can be searched.{hint} {what}: {', '.join(known)}")
        elif place.section == "recipe" and place.field in study.recipe:
            yield both(axis)


def _owners(study: "Study") -> dict[str, type[BaseModel]]:
    """Return the models whose fields axes may set, by the names of their tables."""
    owners: dict[str, type[BaseModel]] = {"recipe": Recipe}  # of which a study has only a part
    for section in ("task", "data", "model", "adapter", "method", "budget"):
        given = getattr(study, section)
        variants = given.items() if isinstance(given, dict) else ()
        tables = {f"{section}.{name}": one for name, one in variants} or {section: given}
        owners |= {table: type(one) for table, one in tables.items() if one is not None}
    return owners


def _recipe_faults(study: "Study") -> Iterator[Fault]:
    is_set = {*study.recipe, *study.search.axes}
    if study.budget is not None and "max_examples" in is_set:
        place = "recipe" if "max_examples" in study.recipe else "search"
        message = "[budget] ends each run; remove max_examples, or the section [budget]"
        yield Fault(f"{place}.max_examples", message)
    needed = [name for name, field in Recipe.model_fields.items() if field.is_required()]
    for name in needed if study.budget is not None else ["max_examples", *needed]:
        if name not in is_set:
            message = f"is missing: set {name} = ... in [recipe], or search it: [search] {name} = {{ ... }}"
            way = "; or end all runs at the same [budget]" if name == "max_examples" else ""
            yield Fault(f"recipe.{name}", message + way)


def _optuna_faults(study: "Study") -> Iterator[Fault]:
    """TPE needs the same axes at every point of an arm, so an arm must fix the variant that an axis belongs to."""
    if study.search.algorithm == "random":
        return
    for axis in study.search.axes:
        section, variant, _ = target(axis)
        if variant and section in study.search.axes and section not in (*study.by, *study.within):
            message = (
                f'is set only where {section} is "{variant}", which optuna would choose as well; compare by "{section}"'
            )
            yield Fault(f"search.{axis}", f"{message} or within it, or let algorithm be random")


def stop_faults(study: "Study") -> Iterator[Fault]:
    """Find what a stop rule needs and the study does not have."""
    needed = 0 if isinstance(study.stop, NoStopping) else study.stop.min_seeds
    if "min_seeds" in study.stop.model_fields_set and needed > len(study.seeds):
        yield Fault("stop.min_seeds", f"got {needed}, but the study has {len(study.seeds)} seeds")


def trial_faults(study: "Study", trial: Trial) -> Iterator[Fault]:
    """Find the faults of one trial beyond its sections."""
    if broken := task_breach(trial.task):
        yield Fault("task", broken)
        return
    yield from trial.dataset_faults()
    yield from model_faults(trial, study.resources.gpus_per_device)
    yield from layout_faults(trial, study.resources, study.sharding)
    yield from vllm_faults(trial, study.sharding)
    yield from budget_faults(trial)
    yield from (Fault("method", message) for message in _unfit(study, trial))


def _unfit(study: "Study", trial: Trial) -> list[str]:
    """Return why the method, which may be a user's, cannot be used here."""
    recipe, examples, devices = trial.recipe, planned_examples(trial), study.resources.devices_per_trial
    batches = None if examples is None else examples // recipe.batch_size
    known = 1 if devices == "auto" else devices
    setup = Setup(trial.level, recipe.batching, recipe.batch_size, _has_encoder(trial), known, batches)
    try:
        return [str(message) for message in trial.method.unfit(setup)]
    except Exception as error:  # noqa: BLE001 - of a user's class; reported as its fault
        return [f'the method "{trial.method.kind}" fails in unfit: {type(error).__name__}: {error}']


def _has_encoder(trial: Trial) -> bool | None:
    if isinstance(trial.model, ScratchModel):
        return trial.model.architecture == "t5"
    sizes = sizes_of(trial)
    return None if sizes is None else sizes.encoder_layers > 0
