"""Laws of a study: it expands to the trials its axes ask for, and what it computes is named by its fingerprint."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studies import TEXT, changed, complaint, load

import showhow
from showhow.errors import UserError
from showhow.sections.recipe import Recipe
from showhow.study.search_space import Grid
from showhow.study.study import Study
from showhow.tasks import task_named
from showhow.tasks.explain import Level

LR = "learning_rate = { log_uniform = [1e-4, 1e-3] }"
SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_loads_and_is_named_as_its_file(path: Path) -> None:
    study = Study.load(path)
    assert study.name == path.stem
    assert all(trial.splits for trial in study.trials)


def test_the_face_of_the_package_has_the_study() -> None:
    assert showhow.Study is Study
    with pytest.raises(AttributeError, match=r"it has ArmRow, .*Study"):
        _ = showhow.Stduy


def test_a_study_has_a_trial_for_each_level_and_draw(tmp_path: Path) -> None:
    study = load(tmp_path)
    assert [trial.level for trial in study.trials] == [Level.NONE, Level.LONG] * 2
    assert [trial.name for trial in study.trials] == ["trial-000", "trial-001", "trial-002", "trial-003"]
    assert study.levels == (Level.NONE, Level.LONG)
    rates = [trial.recipe.learning_rate for trial in study.trials]
    assert rates[0] == rates[1] != rates[2] == rates[3]


def test_a_trial_holds_what_its_point_says(tmp_path: Path) -> None:
    axes = 'task.style = { grid = ["operand"] }\nmodel.heads = { grid = [4] }\ndata.seed = { integers = [3, 4] }'
    for trial in load(tmp_path, changed((LR, f"{LR}\n{axes}"))).trials:
        assert trial.task.model_dump()["style"] == "operand"
        assert trial.model.model_dump()["heads"] == 4
        assert trial.data.seed == trial.point["data.seed"] in (3, 4)
        assert trial.recipe.learning_rate == trial.point["learning_rate"]
        assert trial.dataset("train").seed == trial.data.seed


@pytest.mark.parametrize(
    ("field", "axis"),
    [
        ("hidden_size = 64", "model.hidden_size = { grid = [128, 64] }"),
        ("train_examples = 2_000", "data.train_examples = { grid = [500, 1000] }"),
        ("terms = 6", "task.terms = { integers = [5, 6] }"),
        ("max_examples = 1_600", "max_examples = { grid = [800, 1600] }"),
        ("max_examples = 1_600", "recipe.max_examples = { grid = [800, 1600] }"),
    ],
)
def test_a_field_that_is_searched_need_not_be_set(tmp_path: Path, field: str, axis: str) -> None:
    study = load(tmp_path, changed((field, ""), (LR, f"{LR}\n{axis}")))
    assert len({trial.model_dump_json(exclude={"name"}) for trial in study.trials}) == len(study.trials)


def test_the_axis_of_a_recipe_field_may_carry_its_section(tmp_path: Path) -> None:
    assert load(tmp_path, changed(("learning_rate =", "recipe.learning_rate ="))) == load(tmp_path)
    assert load(tmp_path, changed(("learning_rate =", '"recipe.learning_rate" ='))) == load(tmp_path)


def test_a_preset_is_what_it_states_and_what_stands_beside_it_wins(tmp_path: Path) -> None:
    text = changed(
        ('kind = "modular_sum"\nterms = 6', 'kind = "listops"\npreset = "listops-30"\nmodulus = 7'),
        ("{ terms = 8 }", '{ preset = "listops-10" }'),
    )
    study = load(tmp_path, text)
    assert study.task == task_named("listops-30", {"modulus": 7})
    assert study.trials[0].dataset("longer").task == task_named("listops-10", {})


def test_an_unknown_preset_is_answered_with_the_nearest(tmp_path: Path) -> None:
    text = changed(
        ('kind = "modular_sum"\nterms = 6', 'kind = "listops"\npreset = "listops-3"'), ("{ terms = 8 }", "{}")
    )
    assert 'preset = "listops-3" is not known' in complaint(tmp_path, text)


def test_lengths_that_no_expression_has_are_refused_in_task_split_and_axis(tmp_path: Path) -> None:
    bare = (('kind = "modular_sum"\nterms = 6', 'kind = "listops"'), ("terms = 8", "max_length = 60"))
    assert load(tmp_path, changed(*bare))
    wrong = changed(*bare).replace('"listops"', '"listops"\nmin_length = 30\nmax_length = 31')
    assert "study.toml:5: task: got min_length = 30 and max_length = 31" in complaint(tmp_path, wrong)
    wrong = changed(*bare).replace("max_length = 60", "max_length = 10")
    assert "study.toml:11: data.eval_splits.longer: got min_length" in complaint(tmp_path, wrong)
    wrong = changed(*bare).replace(LR, LR + "\ntask.max_length = { integers = [15, 60] }")
    assert "search.task.max_length" in complaint(tmp_path, wrong)


def test_a_task_of_astronomically_many_questions_is_checked_without_overflow(tmp_path: Path) -> None:
    assert load(tmp_path, changed(("terms = 6", "terms = 1000\nbelow = 10_000")))


def test_impossible_points_name_the_axis_and_the_value(tmp_path: Path) -> None:
    study = load(tmp_path)
    with pytest.raises(UserError, match=r"learning_rate: got 7\.0, must be at most 1"):
        study.trial("x", {"explanation": "none", "learning_rate": 7.0})
    with pytest.raises(UserError, match='batch_size: got "16", must be a whole number'):
        study.trial("x", {"explanation": "none", "learning_rate": 0.1, "batch_size": "16"})


def test_defaults_stand_in_the_definition(tmp_path: Path) -> None:
    study = load(tmp_path)
    recipe = study.definition()["recipe"]
    assert isinstance(recipe, dict)
    assert recipe["beta_2"] == Recipe.model_fields["beta_2"].default
    assert "learning_rate" not in recipe
    assert load(tmp_path, changed(("batch_size = 16", "batch_size = 16\nbeta_2 = 0.999"))) == study


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ('"small"', '"other"', True),
        ("How much", "How many", True),
        ("cpus_per_device = 1", "cpus_per_device = 2\nmax_concurrent = 3", True),
        ("[resources]\ncpus_per_device = 1\n", "", True),
        ("terms = 6", "terms = 6 # six", True),
        ("terms = 6", "terms = 6\nbelow = 10", True),
        ("terms = 6", "terms = 7", False),
        ("[0, 1]", "[0, 2]", False),
        ("samples = 2", "samples = 3", False),
        ('"none", "long"', '"none", "short"', False),
        ("hidden_size = 64", "hidden_size = 128", False),
        ("every_examples = 160", "every_examples = 320", False),
        ('kind = "asha"', 'kind = "none"', False),
    ],
)
def test_the_fingerprint_names_what_is_computed_and_nothing_else(
    tmp_path: Path, old: str, new: str, is_same: bool
) -> None:
    assert (load(tmp_path, changed((old, new))).fingerprint == load(tmp_path).fingerprint) == is_same


STOPS = [
    'kind = "none"',
    'kind = "asha"\ngrace = 0.5',
    'kind = "median"\nmin_seeds = 1',
    'kind = "none"\ngoal_accuracy = 1',
]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    levels=st.lists(st.sampled_from([level.value for level in Level]), min_size=1, unique=True),
    samples=st.integers(1, 5),
    algorithm=st.sampled_from(["random", "optuna"]),
    stop=st.sampled_from(STOPS),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4, unique=True),
    axis=st.sampled_from(
        [
            "",
            "batch_size = { grid = [16] }",
            "beta_1 = { uniform = [0, 0.9] }",
            "warmup_examples = { integers = [0, 9] }",
        ]
    ),
)
def test_what_is_stored_of_a_study_is_that_study(
    tmp_path: Path, levels: list[str], samples: int, algorithm: str, stop: str, seeds: list[int], axis: str
) -> None:
    text = changed(
        ("[0, 1]", json.dumps(seeds)),
        ('["none", "long"]', json.dumps(levels)),
        ("samples = 2", f'samples = {samples}\nalgorithm = "{algorithm}"'),
        ('kind = "asha"', stop),
        (LR, f"{LR}\n{axis}"),
    )
    study = load(tmp_path, text.replace("batch_size = 16\n", "") if "batch_size" in axis else text)
    again = Study.model_validate_json(json.dumps(study.definition()), strict=True)
    assert again == study
    assert again.fingerprint == study.fingerprint
    assert again.trials == study.trials
    assert isinstance(again.search.axes["explanation"], Grid)


def test_override_and_file_give_the_same_study(tmp_path: Path) -> None:
    text = changed(("2_000", "800"), ("[1e-4, 1e-3]", "[1e-3, 2e-3]"), ("[0, 1]", "[7]"))
    overrides = ["data.train_examples=800", "search.learning_rate.log_uniform=[1e-3, 2e-3]", "seeds=[7]"]
    assert load(tmp_path, TEXT, *overrides) == load(tmp_path, text)
