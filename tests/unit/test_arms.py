"""Laws of arms and settings: every trial belongs to exactly one of each, whatever a study compares."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studies import TEXT, changed, complaint, line_of, load

from showhow.cli.main import DONE, main
from showhow.study.arms import names_of
from showhow.study.plan import make_plan, planned_trials
from showhow.study.study import Study

LR = "learning_rate = { log_uniform = [1e-4, 1e-3] }"
LEVELS = 'explanation = { grid = ["none", "long"] }'
SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.toml"))


def compared(tmp_path: Path, compare: str, axes: str = "", *changes: tuple[str, str]) -> Study:
    return load(tmp_path, changed((LR, f"{LR}\n{axes}"), *changes) + f"\n[compare]\n{compare}\n")


@pytest.mark.parametrize(
    "path", [path for path in SHIPPED if "by = " not in path.read_text()], ids=lambda path: path.stem
)
def test_a_study_that_says_nothing_compares_its_levels(path: Path) -> None:
    study = Study.load(path)
    assert study.by == ("explanation",)
    assert [arm.name for arm in study.arms] == [level.value for level in study.levels]
    assert [arm.is_control for arm in study.arms] == [level.is_control for level in study.levels]
    assert all(trial.arm == trial.level.value for trial in study.trials)


def test_grids_over_model_task_and_data_are_settings_unless_the_study_says_otherwise(tmp_path: Path) -> None:
    axes = 'model.heads = { grid = [2, 4] }\ntask.style = { grid = ["equation", "operand"] }\n'
    axes += "beta_1 = { grid = [0.8, 0.9] }"
    study = compared(tmp_path, "", axes)
    assert study.within == ("model.heads", "task.style")
    assert study.settings[:2] == (
        {"model.heads": 2, "task.style": "equation"},
        {"model.heads": 2, "task.style": "operand"},
    )
    assert len(study.settings) == 4
    assert compared(tmp_path, "within = []", axes).settings == ({},)
    assert compared(tmp_path, 'within = ["beta_1"]', axes).settings == ({"beta_1": 0.8}, {"beta_1": 0.9})
    assert compared(tmp_path, 'by = ["model.heads"]', axes).within == ("task.style",)
    assert compared(tmp_path, "", axes, ("samples = 2", 'samples = 2\nalgorithm = "optuna"')).settings == ({},)


def test_arms_are_the_combinations_of_what_is_compared_in_the_order_of_the_file(tmp_path: Path) -> None:
    study = compared(
        tmp_path,
        'by = ["explanation", "data.train_examples"]',
        "data.train_examples = { grid = [500, 1_000] }",
        ("train_examples = 2_000", ""),
    )
    assert [arm.name for arm in study.arms] == ["none, 500", "none, 1000", "long, 500", "long, 1000"]
    assert study.arms[1].values == {"explanation": "none", "data.train_examples": 1000}
    assert study.settings == ({},)


def test_models_are_named_without_owner_or_folder_where_that_is_clear() -> None:
    assert names_of([{"model.name": "a/small"}, {"model.name": "b/large"}]) == ["small", "large"]
    assert names_of([{"model.name": "a/small"}, {"model.name": "b/small"}]) == ["a/small", "b/small"]
    assert names_of([{"beta_1": 1}, {"beta_1": "1"}]) == ["beta_1 1", 'beta_1 "1"']


def test_an_axis_of_a_variant_makes_arms_only_where_it_is_set(tmp_path: Path) -> None:
    scratch = 'kind = "scratch"\narchitecture = "llama"\nhidden_size = 64\nlayers = 2'
    axes = 'adapter.grid = ["none", "lora"]\nadapter.lora.rank = { grid = [4, 8] }'
    study = compared(
        tmp_path, 'by = ["adapter", "adapter.lora.rank"]', axes, (scratch, 'kind = "pretrained"\nname = "a/b"')
    )
    assert [arm.name for arm in study.arms] == ["none", "lora, 4", "lora, 8"]


def test_one_level_for_all_is_set_in_data(tmp_path: Path) -> None:
    level = ("eval_examples = 100", 'eval_examples = 100\nexplanation = "short"')
    rates = (f"{LEVELS}\n", "beta_1 = { grid = [0.8, 0.9] }\n")
    study = load(tmp_path, changed(level, rates) + '\n[compare]\nby = ["recipe.beta_1"]\n')
    assert study.by == ("beta_1",)
    assert [trial.level.value for trial in study.trials] == ["short"] * 4
    assert [arm.name for arm in study.arms] == ["0.8", "0.9"]
    assert study.levels == ("short",)
    assert not any("explanation" in trial.point for trial in study.trials)


def test_an_arm_is_a_control_if_its_level_or_its_method_is(tmp_path: Path) -> None:
    levels = ('["none", "long"]', '["none", "filler"]')
    assert [arm.is_control for arm in compared(tmp_path, "", "", levels).arms] == [False, True]
    study = compared(tmp_path, 'by = ["beta_1"]', "beta_1 = { grid = [0.8, 0.9] }", levels)
    assert [arm.is_control for arm in study.arms] == [False, False]  # whichever level is best


MISTAKES = [
    (
        'by = ["explanatoin"]',
        "",
        "by =",
        ['"explanatoin" is no axis of the search. Did you mean "explanation"?', "Allowed: explanation, learning_rate"],
    ),
    ('by = ["learning_rate"]', "", "by =", ['"learning_rate" is a range; values are compared one by one']),
    ('within = ["explanation"]', "", "within =", ['"explanation" is in compare.by already']),
    ("by = []", "", "by =", ["compare.by: got [], must not be empty"]),
    ('by = ["explanation", "explanation"]', "", "by =", ["compare.by: an axis is named twice"]),
    ('by = "explanation"', "", "by =", ['compare.by: got "explanation", must be a list']),
    ('bye = ["explanation"]', "", "bye =", ['Did you mean "by"?']),
    (
        'by = ["adapter.lora.rank"]',
        'adapter.grid = ["none", "lora"]\nadapter.lora.rank = { grid = [4, 8] }',
        "by =",
        ['is set only where adapter is "lora"; name "adapter" here too'],
    ),
]


@pytest.mark.parametrize(("compare", "axes", "place", "said"), MISTAKES)
def test_a_mistake_in_what_is_compared_is_answered_with_its_line_and_what_is_allowed(
    tmp_path: Path, compare: str, axes: str, place: str, said: list[str]
) -> None:
    text = changed((LR, f"{LR}\n{axes}")) + f"\n[compare]\n{compare}\n"
    answer = complaint(tmp_path, text)
    assert f"study.toml:{line_of(text, place)}: " in answer
    for part in said:
        assert part in answer


@pytest.mark.parametrize(
    ("changes", "tail", "place", "said"),
    [
        (
            [(f"{LEVELS}\n", "")],
            "",
            "[search]",
            'is missing: write explanation = { grid = ["none", "short", "long"] }; or [data] explanation = "long"',
        ),
        (
            [(f"{LEVELS}\n", "beta_1 = { grid = [0.8, 0.9] }\n")],
            '[compare]\nby = ["beta_1"]',
            "[search]",
            'is missing: write [data] explanation = "long", one level for all, or search it',
        ),
        (
            [("eval_examples = 100", 'eval_examples = 100\nexplanation = "long"')],
            "",
            "explanation = { grid",
            "explanation is both searched and set in [data]",
        ),
        (
            [(f"{LEVELS}\n", ""), ("eval_examples = 100", 'eval_examples = 100\nexplanation = "long"')],
            "",
            'explanation = "long"',
            "sets one level for all trials, but the study compares by it",
        ),
        (
            [("eval_examples = 100", 'eval_examples = 100\nexplanation = "lnog"')],
            "",
            'explanation = "lnog"',
            'Did you mean "long"?',
        ),
    ],
)
def test_a_level_that_is_missing_or_said_twice_is_answered_with_both_ways(
    tmp_path: Path, changes: list[tuple[str, str]], tail: str, place: str, said: str
) -> None:
    text = changed(*changes) + f"\n{tail}\n"
    answer = complaint(tmp_path, text)
    assert f"study.toml:{line_of(text, place)}: " in answer
    assert said in answer


AXES: dict[str, Any] = {
    "explanation": {"grid": ["none", "long"]},
    "model.heads": {"grid": [2, 4]},
    "task.style": {"grid": ["equation", "operand"]},
    "beta_1": {"grid": [0.8, 0.9]},
    "method": {"grid": ["plain"]},
}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(list(AXES)), st.integers(1, 5), st.integers(0, 5), st.booleans())
def test_every_trial_belongs_to_exactly_one_arm_and_setting(
    tmp_path: Path, axes: list[str], by: int, within: int, is_random: bool
) -> None:
    named = axes[by : by + within]
    study = load(tmp_path, TEXT).with_changes(
        {
            **{f"search.{axis}": grid for axis, grid in AXES.items()},
            "search.algorithm": "random" if is_random else "optuna",
            "compare": {"by": axes[:by], "within": named if within % 2 else None},
        }
    )
    trials = planned_trials(study)
    assert [arm for arm in study.arms if [trial.arm for trial in trials].count(arm.name) == 0] == []
    assert len({arm.name for arm in study.arms}) == len(study.arms)
    for trial in trials:
        (arm,) = [arm for arm in study.arms if arm.values.items() <= trial.point.items()]
        assert arm.name == trial.arm
        assert [setting for setting in study.settings if setting.items() <= trial.point.items()] == [trial.setting]
    points = [json.dumps(trial.point) for trial in study.trials]
    assert len(set(points)) == len(points)


def test_check_and_plan_say_what_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axes = "model.heads = { grid = [2, 4] }\nbeta_1 = { grid = [0.8, 0.9] }"
    study = compared(tmp_path, 'by = ["beta_1", "explanation"]', axes)
    assert [arm.arm for arm in make_plan(study, 2).arms] == ["0.8, none", "0.8, long", "0.9, none", "0.9, long"]
    path = str(tmp_path / "study.toml")
    assert main(["check", path]) == DONE
    compares = (
        "it compares 4 arms (0.8, none; 0.8, long; 0.9, none; 0.9, long) in each of 2 settings of heads with 2 seeds"
    )
    assert compares in capsys.readouterr().out
    assert main(["plan", path]) == DONE
    shown = capsys.readouterr().out
    assert "beta_1, explanation" in shown
    assert "settings     2, by model.heads" in shown
