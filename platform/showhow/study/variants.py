"""Named variants of the sections that have kinds: `[method.plain]`, `[adapter.lora]`, `[model.small]`, `[task.easy]`.
An axis of the section's bare name picks one: `search.adapter = { grid = ["lora", "none"] }`. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from showhow.errors import UserError, nearest
from showhow.kinds import Catalogue, are_named
from showhow.methods import METHOD_KINDS
from showhow.sections.adapter import ADAPTER_KINDS
from showhow.sections.budget import Budget
from showhow.sections.data import Data
from showhow.sections.faults import Fault
from showhow.sections.recipe import MODEL_KINDS
from showhow.study.search_space import Grid, SearchSpace, named_axes
from showhow.tasks import TASK_KINDS

VARIED: dict[str, Catalogue[Any]] = {
    "task": TASK_KINDS,
    "model": MODEL_KINDS,
    "adapter": ADAPTER_KINDS,
    "method": METHOD_KINDS,
}
EXPLANATION = "explanation"  # the axis of the level
NO_ADAPTER = "none"  # on the axis `adapter`: the model's own weights are trained
# No single values, so no axis sets them; the level is searched as `explanation`.
NOT_SEARCHED = ("kind", "eval_splits", "targets", "path", "sha256", "explanation", "unit")


class Target(NamedTuple):
    """What an axis sets. variant: empty where the section has none, or the axis sets it in all; field: empty for an
    axis that picks a variant."""

    section: str
    variant: str
    field: str

    @property
    def table(self) -> str:
        """The dotted name of the table that has the field."""
        return f"{self.section}.{self.variant}".rstrip(".")


def target(axis: str) -> Target:
    """Return what an axis sets: a bare name means a variant of a section, or a field of the recipe."""
    if axis in VARIED:
        return Target(axis, "", "")
    *table, field = axis.split(".")
    return Target(table[0] if table else "recipe", ".".join(table[1:]), field)


def axes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the axes of a study as written, by name."""
    search = values.get("search")
    if isinstance(search, SearchSpace):
        return dict(search.axes)
    return dict(named_axes(search)) if isinstance(search, dict) else {}


def table_of(values: Mapping[str, Any], place: Target) -> dict[str, Any] | None:
    """Return the table whose field an axis sets; None if there is none."""
    table = values.get(place.section)
    if place.variant and isinstance(table, dict):
        table = table.get(place.variant)
    return table if isinstance(table, dict) else None


def fields_of(section: str, table: Mapping[str, Any]) -> list[str]:
    """Return the fields of a table as written that an axis may set."""
    sections: dict[str, type[BaseModel]] = {"data": Data, "budget": Budget}
    owner = sections.get(section)
    if section in VARIED and isinstance(table.get("kind"), str):
        try:
            owner = VARIED[section].find(table["kind"])
        except UserError:
            owner = None
    return [field for field in owner.model_fields if field not in NOT_SEARCHED] if owner is not None else []


def named_in(axis: Any) -> list[Any]:
    """Return the values of a grid as written; [] if it is no grid."""
    grid = axis.grid if isinstance(axis, Grid) else axis.get("grid") if isinstance(axis, dict) else None
    return list(grid) if isinstance(grid, list | tuple) else []


def implied_variants(values: Mapping[str, Any], axes: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Return the sections with variants, completed with default variants of the kinds that an axis names without a
    table; and the faults of names that are neither."""
    sections, faults = {}, []
    for section, catalogue in VARIED.items():
        tables = values.get(section) or {}
        names = [name for name in named_in(axes.get(section)) if not is_no_adapter(section, name)]
        if not names or (tables and not are_named(tables)):
            continue
        implied = {}
        for name in names:
            if name in tables:
                continue
            try:
                catalogue.find(str(name))
                implied[name] = {"kind": name}
            except UserError as error:
                is_offered = name in catalogue.kinds
                faults.append(Fault(f"search.{section}", str(error) if is_offered else _unknown(section, name, tables)))
        if tables or implied:
            sections[section] = {**tables, **implied}
    return sections, faults


def _unknown(section: str, name: Any, tables: Iterable[str]) -> str:
    allowed = [*tables, *VARIED[section].kinds, *([NO_ADAPTER] if section == "adapter" else [])]
    what = f"{json.dumps(name)} is neither a variant, [{section}.NAME], nor a kind"
    return f"{what}.{nearest(str(name), allowed)} Allowed: {', '.join(dict.fromkeys(allowed))}"


def is_no_adapter(section: str, name: Any) -> bool:
    """True for the value of an axis that picks no variant: without an adapter the model's own weights are trained."""
    return section == "adapter" and name == NO_ADAPTER


def variant_faults(section: str, given: Any, axis: Any, is_set: bool) -> Iterator[Fault]:
    """Yield the conflicts between a section, as read, and the axis that picks its variants (None: no axis)."""
    names = list(given) if isinstance(given, dict) else []
    example = f"{section} = {{ grid = {json.dumps(names or ['a', 'b'])} }}"
    if axis is None:
        if names:
            yield Fault(
                section, f"has the variants {', '.join(names)}, and no axis picks one: write {example} in [search]"
            )
    elif not isinstance(axis, Grid):
        yield Fault(f"search.{section}", f"variants are picked one by one: write {example}")
    elif is_set and given is not None and not isinstance(given, dict):
        message = (
            f"{section} is both searched and set in [{section}]; name the variants, as in [{section}.{axis.grid[0]}]"
        )
        yield Fault(f"search.{section}", f"{message}, or remove the axis")
    if isinstance(axis, Grid) and names:
        yield from _name_faults(section, given, axis)


def _name_faults(section: str, given: dict[str, Any], axis: Grid) -> Iterator[Fault]:
    for name in given:
        if is_no_adapter(section, name):
            yield Fault(f"{section}.{name}", f'a variant may not be called "{name}", which means no adapter')
        elif name not in axis.grid:
            yield Fault(f"{section}.{name}", f"no axis names this variant; add it to search.{section}, or remove it")
        elif not (name.strip() and name.isprintable()):
            yield Fault(f"{section}.{name}", f"a variant needs a name that can be printed, got {json.dumps(name)}")
        elif name in VARIED[section].classes and given[name].kind != name:
            yield Fault(f"{section}.{name}", f'the variant "{name}" is of the kind "{given[name].kind}"; rename it')


def alike_faults(section: str, given: Any, axes: Iterable[str]) -> Iterator[Fault]:
    """Yield variants that equal an earlier one, if no axis sets a field of either."""
    searched = {target(axis).variant for axis in axes if target(axis).section == section}
    seen: dict[str, str] = {}
    for name, one in given.items() if isinstance(given, dict) else ():
        first = seen.setdefault(one.model_dump_json(), name) if name not in searched else name
        if first != name:
            yield Fault(f"{section}.{name}", f'the variants "{first}" and "{name}" are the same; remove one')
