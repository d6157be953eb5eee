"""Laws of the picture: it is written whole, needs no display, and its mean keeps the runs that solved the task."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from showhow.evidence.compare import compare
from showhow.evidence.design import Design
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.plots import accuracy_picture, mean_curve
from showhow.evidence.result import Setting
from showhow.sections.arm import Arm


def click(level: str, seed: int, until: int | None) -> RunOutcome:
    """An all-or-nothing run: at chance, then, if at all, suddenly at 1."""
    seen = [*range(2000, until or 30_000, 2000), until or 30_000]
    right = 50 if until else 5
    return RunOutcome(
        arm=level,
        level=level,
        trial="a",
        seed=seed,
        params={},
        status="finished",
        selection=right / 50,
        grades=tuple(place < right for place in range(50)),
        examples=seen[-1],
        budget=30_000,
        examples_until_solved=until,
        curve=tuple((examples, 1.0 if examples == until else 0.1) for examples in seen),
    )


def size_of(path: Path) -> tuple[int, ...]:
    return tuple(imread(path).shape[:2])


@pytest.mark.parametrize("levels", [(), ("short",), ("none", "short", "medium", "long", "shuffled", "filler", "other")])
def test_any_number_of_levels_gives_one_picture_of_one_size(tmp_path: Path, levels: tuple[str, ...]) -> None:
    outcomes = [click(level, seed, 8000 + 900 * seed if seed else None) for level in levels for seed in range(3)]
    result = compare(outcomes, 0.1, 0.11)
    path = accuracy_picture(outcomes, result, tmp_path / "new" / "accuracy.png", "How much? " * 12)
    assert size_of(path) == (860, 1440)


@pytest.mark.parametrize("sizes", [2, 5, 17])
def test_any_number_of_settings_gives_one_picture_of_that_size(tmp_path: Path, sizes: int) -> None:
    settings: list[Setting] = [{"model.layers": layers} for layers in range(1, sizes + 1)]
    outcomes = [
        replace(click(level, seed, 8000), trial=f"{setting}", setting=setting)
        for setting in settings
        for level in ("none", "long")
        for seed in range(2)
    ]
    result = compare(outcomes, 0.1, 0.5, design=Design(settings=tuple(settings)))
    assert size_of(accuracy_picture(outcomes, result, tmp_path / "a.png", "How much? " * 12)) == (860, 1440)


def test_arms_that_are_no_levels_give_a_picture_too(tmp_path: Path) -> None:
    arms = tuple(Arm(name=f"method-{place}", values={}, is_control=place > 6) for place in range(9))
    outcomes = [click(arm.name, seed, 8000) for arm in arms for seed in range(2)]
    result = compare(outcomes, 0.1, None, design=Design(by=("method",), arms=arms, unit="flops"))
    assert size_of(accuracy_picture(outcomes, result, tmp_path / "a.png", "Which method?")) == (860, 1440)


def test_a_failed_seed_and_runs_without_a_curve_are_no_obstacle(tmp_path: Path) -> None:
    outcomes = [click("long", seed, 8000) for seed in range(3)]
    failed = replace(outcomes[0], grades=None, status="failed", examples_until_solved=None)
    bare = replace(outcomes[1], curve=())
    runs = [failed, bare, outcomes[2]]
    assert accuracy_picture(runs, compare(runs, 0.1, 0.5), tmp_path / "a.png", "?").stat().st_size > 10_000


def test_no_global_plotting_state_is_touched() -> None:
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_run_that_solved_the_task_stays_in_the_mean() -> None:
    seen, mean = mean_curve([[(10, 0.0), (20, 1.0)], [(10, 0.0), (20, 0.0), (40, 0.0)]])
    assert seen.tolist() == [10, 20, 40]
    np.testing.assert_allclose(mean, [0, 0.5, 0.5])
