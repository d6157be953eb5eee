"""The arms and settings that a study compares, from its `[compare]` section and its grids. Pure."""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import PurePath

from showhow.errors import nearest
from showhow.sections.compare import Compare
from showhow.sections.faults import Fault
from showhow.sections.scalars import Scalar
from showhow.study.search_space import Grid, SearchSpace, applying
from showhow.study.variants import VARIED, target

# Sections that are not tuned: a grid over one makes a separate comparison at each value, unless a study sets
# otherwise.
_NOT_TUNED = ("model", "task", "data")

Values = dict[str, Scalar]


def within_of(search: SearchSpace, compare: Compare) -> tuple[str, ...]:
    """Return the axes of a study's settings: those that it names or, in a random search, the grids over the model, the
    task and the data that it does not compare by."""
    if compare.within is not None:
        return compare.within
    if search.algorithm != "random":
        return ()
    found: list[str] = []
    grids = {axis: grid for axis, grid in search.axes.items() if isinstance(grid, Grid) and len(grid.grid) > 1}
    for axis in sorted(grids, key=lambda name: target(name).field != ""):  # axes that pick a variant first
        section, variant, _ = target(axis)
        if section in _NOT_TUNED and axis not in compare.by and (not variant or section in found):
            found.append(axis)
    return tuple(axis for axis in grids if axis in found)


def combinations(search: SearchSpace, axes: Sequence[str]) -> tuple[Values, ...]:
    """Return each combination of the values of some grids, in the order of the study file, the first axis outermost,
    without axes that have no effect in it. No axes give one empty combination."""
    grids = [axis.extremes for axis in (search.axes[name] for name in axes)]
    found = (applying(dict(zip(axes, values, strict=True))) for values in product(*grids))
    return tuple({json.dumps(values): values for values in found}.values())


def names_of(arms: Sequence[Values]) -> list[str]:
    """Return a name for each arm, the values in words: `plain, long`. If two are equal, with their axes."""
    words = {axis: _words(axis, [arm[axis] for arm in arms if axis in arm]) for arm in arms for axis in arm}
    names = [", ".join(words[axis][json.dumps(value)] for axis, value in arm.items()) for arm in arms]
    if len(set(names)) == len(names):
        return names
    return [", ".join(f"{axis} {json.dumps(value)}" for axis, value in arm.items()) for arm in arms]


def _words(axis: str, values: Sequence[Scalar]) -> dict[str, str]:
    """Return values as text, by their JSON: names of models without folder or owner, unless two would be equal."""
    texts = {json.dumps(value): value if isinstance(value, str) else json.dumps(value) for value in values}
    section, _, field = target(axis)
    if (section, field) == ("model", "name"):
        short = {key: PurePath(text).name for key, text in texts.items()}
        return short if len(set(short.values())) == len(texts) else texts
    return texts


def compare_faults(search: SearchSpace, compare: Compare) -> Iterator[Fault]:
    """Yield the faults of the axes that a study compares by and within."""
    within = compare.within or ()
    for name, axes in (("by", compare.by), ("within", within)):
        for axis in axes:
            if fault := _axis_fault(axis, axes, search):
                yield Fault(f"compare.{name}", fault)
    for axis in within:
        if axis in compare.by:
            yield Fault("compare.within", f'"{axis}" is in compare.by already; name another axis')


def _axis_fault(axis: str, axes: Sequence[str], search: SearchSpace) -> str | None:
    if axis not in search.axes:
        known = ", ".join(search.axes) or "none"
        return f'"{axis}" is no axis of the search.{nearest(axis, search.axes)} Allowed: {known}'
    if not isinstance(search.axes[axis], Grid):
        return f'"{axis}" is a range; values are compared one by one, so it must be {{ grid = [...] }}'
    section, variant, _ = target(axis)
    if variant and section in VARIED and section not in axes:
        return f'"{axis}" is set only where {section} is "{variant}"; name "{section}" here too'
    return None
