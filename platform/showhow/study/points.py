"""The sections of a trial: those of the study, with the values of a point filled in. Pure."""

from collections.abc import Mapping
from typing import Any

from showhow.sections.scalars import Scalar
from showhow.study.variants import EXPLANATION, VARIED, is_no_adapter, target


def picked_at(point: Mapping[str, Scalar]) -> dict[str, str]:
    """Return the variant that a point picks of each section."""
    return {section: str(point[section]) for section in VARIED if section in point}


def sections_at(point: Mapping[str, Scalar], of_study: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of a trial as tables, from those of the study."""
    sections = dict(of_study)
    for section, variant in picked_at(point).items():
        sections[section] = None if is_no_adapter(section, variant) else (sections[section] or {}).get(variant)
    for axis, value in point.items():
        section, _, field = target(axis)
        if axis != EXPLANATION and field:
            sections[section] = {**sections[section], field: value}
    recipe, budget = sections["recipe"], sections["budget"]
    if budget is None:  # in examples, recipe and budget agree
        sections["budget"] = {"unit": "examples", "amount": recipe.get("max_examples", 1)}
    elif budget["unit"] == "examples":
        sections["recipe"] = {**recipe, "max_examples": max(1, int(budget["amount"]))}
    return sections
