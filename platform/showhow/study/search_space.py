"""The search space: named axes over the fields of a study, and the points drawn from it. Pure.

An axis is named by the field it sets: `explanation`, a recipe field (`learning_rate`), or a field of another section
(`task.style`, `model.hidden_size`, `data.train_examples`). The bare name of a section with variants (`adapter`) picks
one of them, and an axis of three parts (`adapter.lora.rank`) sets a field of a variant, in the points that have it.
Grid axes are crossed; the other axes are drawn `samples` times, and draw i is the same at every grid point, so that
arms are compared on equal terms.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from showhow.sections.faults import Fault, refuse
from showhow.sections.scalars import STRICT, Positive, Scalar
from showhow.seeds import rng_for

MOST_TRIALS = 10_000


Bounds = tuple[float, float]


class Grid(BaseModel):
    """Each of the values in turn."""

    model_config = STRICT
    grid: Annotated[tuple[Scalar, ...], Field(min_length=1)]

    @field_validator("grid")
    @classmethod
    def _no_repeats(cls, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        repeated = [value for index, value in enumerate(values) if value in values[:index]]
        if repeated:
            raise ValueError(f"names {json.dumps(repeated[0])} twice")
        return values

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """Values to check against the field that the axis sets."""
        return self.grid

    def draw(self, fraction: float) -> Scalar:
        """Map a number in [0, 1) to a value."""
        return self.grid[int(fraction * len(self.grid))]


class Uniform(BaseModel):
    """A real number between two bounds, all equally likely."""

    model_config = STRICT
    uniform: Bounds

    @field_validator("uniform")
    @classmethod
    def _ordered(cls, bounds: Bounds) -> Bounds:
        return _ordered(bounds)

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """Both bounds."""
        return self.uniform

    def draw(self, fraction: float) -> float:
        """Map a number in [0, 1) to a value."""
        low, high = self.uniform
        return low + fraction * (high - low)


class LogUniform(BaseModel):
    """A real number between two bounds above 0, every order of magnitude equally likely."""

    model_config = STRICT
    log_uniform: Bounds

    @field_validator("log_uniform")
    @classmethod
    def _positive(cls, bounds: Bounds) -> Bounds:
        if bounds[0] <= 0:
            raise ValueError(f"log_uniform needs bounds above 0, got {bounds[0]:g}")
        return _ordered(bounds)

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """Both bounds."""
        return self.log_uniform

    def draw(self, fraction: float) -> float:
        """Map a number in [0, 1) to a value; four significant digits, so that tables and addresses stay readable."""
        low, high = map(math.log, self.log_uniform)
        return float(f"{math.exp(low + fraction * (high - low)):.4g}")


class Integers(BaseModel):
    """A whole number between two bounds, both included."""

    model_config = STRICT
    integers: tuple[int, int]

    @field_validator("integers")
    @classmethod
    def _ordered(cls, bounds: tuple[int, int]) -> tuple[int, int]:
        _ordered(bounds)
        return bounds

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """Both bounds."""
        return self.integers

    def draw(self, fraction: float) -> int:
        """Map a number in [0, 1) to a value."""
        low, high = self.integers
        return low + int(fraction * (high - low + 1))


AXIS_KINDS = ("grid", "uniform", "log_uniform", "integers")


def _axis_kind(value: Any) -> str | None:
    names = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, BaseModel) else ()
    return next((name for name in names if name in AXIS_KINDS), None)


Axis = Annotated[
    Annotated[Grid, Tag("grid")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[Integers, Tag("integers")],
    Discriminator(
        _axis_kind,
        custom_error_type="axis_kind",
        custom_error_message="an axis is one of { grid = [...] }, { uniform = [low, high] }, "
        "{ log_uniform = [low, high] }, { integers = [low, high] }",
    ),
]


class SearchSpace(BaseModel):
    """The `[search]` section. samples: draws of the axes that are not grids. algorithm: `random`, or `optuna` (TPE),
    which chooses each next point of an arm by the results of the arm's earlier ones (grids are then choices)."""

    model_config = STRICT

    samples: Positive = 1
    seed: Annotated[int, Field(ge=0)] = 0
    algorithm: Literal["random", "optuna"] = "random"
    axes: dict[str, Axis]

    @model_validator(mode="before")
    @classmethod
    def _collect_axes(cls, values: Any) -> Any:
        """Collect the axes, at any depth, under `axes`; what is not a setting must be an axis."""
        if not isinstance(values, dict):
            return values
        if isinstance(values.get("method"), str):
            refuse([Fault("method", _no_algorithm(values["method"]))])
        settings = {key: value for key, value in values.items() if key in cls.model_fields and key != "axes"}
        found = list(named_axes(values))
        names = [name for name, _ in found]
        refuse(Fault(f"axes.{name}", "is searched twice") for name in dict.fromkeys(names) if names.count(name) > 1)
        # JSON is parsed already, and pydantic's strict mode then accepts no list for a tuple.
        return {**settings, "axes": {name: _with_tuples(axis) for name, axis in found}}

    @model_validator(mode="after")
    def _is_finite(self) -> Self:
        if self.size > MOST_TRIALS:
            refuse(
                [Fault("samples", f"makes {self.size:,} trials with the grids; at most {MOST_TRIALS:,} are possible")]
            )
        return self

    @property
    def size(self) -> int:
        """The number of points of a random or grid search, before axes that do not apply are removed."""
        grids = math.prod(len(axis.grid) for axis in self.axes.values() if isinstance(axis, Grid))
        return grids * (self.samples if self._drawn else 1)

    @property
    def _drawn(self) -> dict[str, Axis]:
        return {name: axis for name, axis in self.axes.items() if not isinstance(axis, Grid)}

    def points(self) -> list[dict[str, Scalar]]:
        """Return the points of a random or grid search, samples outermost, so that every arm gets its first point
        early. Points that differ only in axes without effect are merged."""
        grids = {name: axis.grid for name, axis in self.axes.items() if isinstance(axis, Grid)}
        samples = self.samples if self._drawn else 1
        drawn = {name: self._draws(name, axis, samples) for name, axis in self._drawn.items()}
        points = [
            applying({**dict(zip(grids, cell, strict=True)), **{name: draws[sample] for name, draws in drawn.items()}})
            for sample in range(samples)
            for cell in itertools.product(*grids.values())
        ]
        has_variants = any(len(point) < len(self.axes) for point in points)
        return list({json.dumps(point): point for point in points}.values()) if has_variants else points

    def _draws(self, name: str, axis: Axis, samples: int) -> list[Scalar]:
        """Draw each value from its own stratum: a Latin hypercube (McKay et al., 1979), so that few samples still
        cover each range."""
        strata = list(range(samples))
        rng_for("strata", self.seed, name, samples).shuffle(strata)
        shifts = (rng_for("draw", self.seed, name, samples, sample).random() for sample in range(samples))
        return [axis.draw((stratum + shift) / samples) for stratum, shift in zip(strata, shifts, strict=True)]


def named_axes(search: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each axis of a `[search]` section as written, by the name of the field it sets. A saved study has its axes
    under `axes` already."""
    collected = search.get("axes", {})
    tables = [collected if isinstance(collected, dict) else {"axes": collected}]
    tables.append({key: value for key, value in search.items() if key not in SearchSpace.model_fields})
    for table in tables:
        for name, axis in _flatten(table):
            yield name.removeprefix("recipe."), axis


def applies(axis: str, point: Mapping[str, Any]) -> bool:
    """Return whether an axis has an effect at a point: one over a field of a variant, such as `adapter.lora.rank`, only
    where that variant is picked."""
    section, *variant = axis.split(".")[:-1] or [""]
    return not variant or point.get(section) == ".".join(variant)


def applying(point: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return a point without the axes that have no effect there."""
    return {axis: value for axis, value in point.items() if applies(axis, point)}


def _no_algorithm(got: str) -> str:
    example = 'method = { grid = ["plain", "step_by_step"] }'
    return f'got "{got}", but method is an axis: {example}. How points are chosen is set by algorithm = "{got}"'


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1] or math.isinf(bounds[1] - bounds[0]):
        raise ValueError(f"the bounds must be finite and increase, got [{bounds[0]:g}, {bounds[1]:g}]")
    return bounds


def _with_tuples(axis: Any) -> Any:
    if not isinstance(axis, dict):
        return axis
    return {name: tuple(value) if isinstance(value, list) else value for name, value in axis.items()}


def _flatten(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        axis, nested = _split(value)
        if axis is not None or not nested:
            yield prefix + key, value if axis is None else axis
        yield from _flatten(nested, f"{prefix}{key}.")


def _split(value: Any) -> tuple[Any, dict[str, Any]]:
    """Split a table into its own axis (None: it has none) and the axes nested in it, as in `adapter.grid = [...]` with
    `adapter.lora.rank = {...}`."""
    if not isinstance(value, dict) or not value:
        return value, {}
    nested = {key: inner for key, inner in value.items() if isinstance(inner, dict) and key not in AXIS_KINDS}
    axis = {key: inner for key, inner in value.items() if key not in nested}
    if axis and not (nested and any(key in AXIS_KINDS for key in axis)):
        return value, {}  # an axis, or neither an axis nor a group of axes
    return axis or None, nested
