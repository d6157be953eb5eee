"""Laws of the search space: grids are crossed, every level gets the same draws, and draws cover their ranges."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from showhow.study.search_space import Grid, Integers, LogUniform, SearchSpace, Uniform

LEVELS = ["none", "short", "long"]
FEW = settings(max_examples=60, deadline=None)


def space(samples: int = 1, seed: int = 0, **axes: Any) -> SearchSpace:
    return SearchSpace.model_validate({"samples": samples, "seed": seed, "explanation": {"grid": LEVELS}, **axes})


@FEW
@given(st.integers(1, 30), st.integers(0, 2**40))
def test_every_level_gets_the_same_draws(samples: int, seed: int) -> None:
    points = space(samples, seed, a={"log_uniform": [1e-4, 1]}, b={"integers": [3, 9]}, c={"uniform": [-1, 1]}).points()
    by_level = [[{**p, "explanation": ""} for p in points if p["explanation"] == level] for level in LEVELS]
    assert by_level[0] == by_level[1] == by_level[2]
    assert len(by_level[0]) == samples


@FEW
@given(st.integers(1, 40), st.integers(0, 2**40))
def test_draws_fall_into_each_stratum_once(samples: int, seed: int) -> None:
    points = space(samples, seed, a={"uniform": [0, 1]}, b={"log_uniform": [1e-6, 1]}).points()
    first = [p for p in points if p["explanation"] == "none"]
    strata = [int(float(p["a"]) * samples) for p in first]
    assert sorted(strata) == list(range(samples))
    # four significant digits may carry a draw over the edge of its stratum
    logs = sorted((math.log(float(p["b"])) / math.log(1e-6)) * samples for p in first)
    assert all(abs(value - (index + 0.5)) < 0.5 + 1e-3 * samples for index, value in enumerate(logs))


@FEW
@given(st.integers(2, 30), st.integers(0, 2**40))
def test_axes_are_drawn_independently(samples: int, seed: int) -> None:
    points = space(samples, seed, a={"uniform": [0, 1]}, b={"uniform": [0, 1]}).points()
    assert [p["a"] for p in points] != [p["b"] for p in points]


def test_another_seed_gives_other_draws_and_the_same_seed_the_same() -> None:
    axes = {"a": {"uniform": [0, 1]}}
    assert space(3, 0, **axes).points() == space(3, 0, **axes).points() != space(3, 1, **axes).points()


def test_grids_are_crossed_and_draws_repeat_at_each_cell() -> None:
    points = space(2, x={"grid": [1, 2]}, a={"uniform": [0, 1]}).points()
    cells = [(p["explanation"], p["x"]) for p in points]
    assert cells == list(itertools.product(LEVELS, [1, 2])) * 2
    assert len({p["a"] for p in points}) == 2


def test_grids_alone_are_not_repeated() -> None:
    assert len(space(5, x={"grid": [1, 2]}).points()) == 6


@FEW
@given(st.integers(1, 20), st.lists(st.integers(1, 5), max_size=3), st.booleans())
def test_the_size_is_the_number_of_points(samples: int, grids: list[int], has_range: bool) -> None:
    axes: dict[str, Any] = {f"g{index}": {"grid": list(range(size))} for index, size in enumerate(grids)}
    if has_range:
        axes["a"] = {"integers": [0, 9]}
    found = space(samples, **axes)
    assert found.size == len(found.points())


@FEW
@given(st.floats(0, 1, exclude_max=True), st.integers(-50, 50), st.integers(1, 60))
def test_a_draw_lies_within_the_bounds(fraction: float, low: int, width: int) -> None:
    high = low + width
    assert low <= Integers(integers=(low, high)).draw(fraction) <= high
    assert low <= Uniform(uniform=(low, high)).draw(fraction) <= high
    assert Grid(grid=tuple(range(low, high))).draw(fraction) in range(low, high)
    bounds = (10.0**-4, 10.0**-4 * (1 + width))
    assert bounds[0] * 0.999 <= LogUniform(log_uniform=bounds).draw(fraction) <= bounds[1] * 1.001


def test_both_ends_of_whole_numbers_are_drawn() -> None:
    axis = Integers(integers=(2, 4))
    assert {axis.draw(fraction / 100) for fraction in range(100)} == {2, 3, 4}


def test_dotted_names_are_gathered_however_they_are_nested() -> None:
    nested = space(task={"style": {"grid": ["a"]}, "deep": {"er": {"grid": [1]}}}, recipe={"beta_1": {"grid": [0.9]}})
    flat = space(**{"task.style": {"grid": ["a"]}, "task.deep.er": {"grid": [1]}, "beta_1": {"grid": [0.9]}})
    assert nested == flat
    assert list(nested.axes) == ["explanation", "task.style", "task.deep.er", "beta_1"]


@pytest.mark.parametrize(
    "axis",
    [
        {},
        3,
        [1, 2],
        "none",
        {"grid": []},
        {"grid": [1, 1]},
        {"grid": [True, 1]},
        {"grid": [None]},
        {"grid": [math.nan]},
        {"uniform": [1, 1]},
        {"uniform": [2, 1]},
        {"uniform": [0, math.inf]},
        {"uniform": [math.nan, 1]},
        {"uniform": [0, 1, 2]},
        {"uniform": [-1e308, 1e308]},
        {"log_uniform": [0, 1]},
        {"log_uniform": [-1, 1]},
        {"integers": [0, 1.5]},
        {"integers": [3, 1]},
        {"uniform": [0, 1], "grid": [1]},
        {"gird": [1]},
    ],
)
def test_what_is_no_axis_is_refused(axis: Any) -> None:
    with pytest.raises(ValidationError):
        space(a=axis)
