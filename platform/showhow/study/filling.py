"""Fills in what a study omits: the first value of each axis where a section needs one, variants without parameters, and
defaults, so that a saved study does not change with them. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from showhow.sections.faults import Fault
from showhow.sections.recipe import Recipe
from showhow.study.search_space import AXIS_KINDS
from showhow.study.variants import axes_of, fields_of, implied_variants, table_of, target


def filled(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Return the sections of a study as written, with what they omit, and the contradictions in them."""
    axes = axes_of(values)
    variants, faults = implied_variants(values, axes)
    complete: dict[str, Any] = {**values, **variants}
    for axis, written in axes.items():
        place = target(axis)
        table = table_of(complete, place) if place.field and place.section != "recipe" else None
        if table is None or place.field not in fields_of(place.section, table):
            continue
        if place.field in table:
            faults.append(both(axis))
        first = _first(written)
        if first is not None:
            _set(complete, place.table, {place.field: first, **table})
    recipe = complete.get("recipe")
    if isinstance(recipe, dict):
        complete["recipe"] = {**_defaults(axes), **recipe}
    return complete, faults


def unfilled(values: dict[str, Any], axes: Iterable[str]) -> dict[str, Any]:
    """Return the sections of a study without the values that axes set."""
    sections = dict(values)
    for place in map(target, axes):
        table = table_of(sections, place) if place.field and place.section != "recipe" else None
        if table is not None:
            _set(sections, place.table, {key: value for key, value in table.items() if key != place.field})
    return sections


def both(axis: str) -> Fault:
    """Return the fault of a field that is both searched and set."""
    place = target(axis)
    return Fault(f"search.{axis}", f"{place.field} is both searched and set in [{place.table}]; remove one of them")


def at_axes(faults: Iterable[Fault], axes: Iterable[str], picked: Mapping[str, str] | None = None) -> list[Fault]:
    """Move faults of a searched field, or of a section with one, to its axis, and faults of a picked variant to that
    variant. picked: the variant of each section that has several."""
    places: dict[str, str] = {}
    for axis in axes:
        section, variant, field = target(axis)
        if not field:
            continue
        for table in dict.fromkeys((f"{section}.{variant}".rstrip("."), section)):
            places[f"{table}.{field}"] = f"search.{axis}"
            if section != "recipe" and not variant:
                places.setdefault(table, f"search.{axis}")
    return [Fault(places.get(key) or _picked(key, picked or {}), message) for key, message in faults]


def _picked(key: str, picked: Mapping[str, str]) -> str:
    section, dot, rest = key.partition(".")
    return f"{section}.{picked[section]}{dot}{rest}" if section in picked else key


def _set(values: dict[str, Any], table: str, content: dict[str, Any]) -> None:
    """Set a table, or one of several named tables; the old one is not changed."""
    section, _, variant = table.partition(".")
    values[section] = {**values[section], variant: content} if variant else content


def _first(written: Any) -> Any:
    """Return the first value of an axis; None if it is not one."""
    if isinstance(written, BaseModel):
        return getattr(written, next(iter(type(written).model_fields)))[0]
    found = [written[kind] for kind in AXIS_KINDS if kind in written] if isinstance(written, dict) else []
    return found[0][0] if found and isinstance(found[0], list | tuple) and found[0] else None


def _defaults(axes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's defaults: a saved study must not change with them."""
    defaults = {name: field.default for name, field in Recipe.model_fields.items() if not field.is_required()}
    return {name: value for name, value in defaults.items() if name not in axes and value is not None}
