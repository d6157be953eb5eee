"""Laws of a study made in Python: it is the study that a file would give, and its mistakes are named by their keys."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from studies import TEXT, changed, load

from showhow.errors import UserError
from showhow.machines.budget import evaluate_every, planned_examples
from showhow.sections.recipe import ScratchModel
from showhow.study.search_space import LogUniform
from showhow.study.study import Study
from showhow.tasks.modular_sum import ModularSum

VALUES: dict[str, Any] = tomllib.loads(TEXT)
SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.toml"))
QUIET = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_a_study_of_sections_is_the_study_of_a_file(tmp_path: Path) -> None:
    study = load(tmp_path)
    assert Study.of(**VALUES) == study
    assert Study.of(**VALUES).fingerprint == study.fingerprint


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_definition_of_a_study_is_that_study(path: Path) -> None:
    study = Study.load(path)
    for again in (
        Study.of(**study.definition()),
        Study.model_validate(study.definition()),
        Study.model_validate_json(json.dumps(study.definition()), strict=True),
        study.with_changes({}),
    ):
        assert again == study
        assert again.fingerprint == study.fingerprint
        assert again.definition() == study.definition()
        assert again.trials == study.trials


def test_a_study_that_is_constructed_has_the_same_defaults_and_the_same_fingerprint(tmp_path: Path) -> None:
    study = load(tmp_path)
    model = ScratchModel(architecture="llama", hidden_size=64, layers=2)
    values = VALUES | {"task": ModularSum(terms=6), "model": model, "seeds": (0, 1)}
    for same in (Study(**values), Study.model_validate(VALUES), Study.of(**values)):
        assert same == study
        assert same.fingerprint == study.fingerprint
    rate = LogUniform(log_uniform=(1e-4, 1e-3))
    assert Study.of(**VALUES | {"search": VALUES["search"] | {"learning_rate": rate}}) == study


def test_a_constructed_study_with_faults_says_them_when_it_is_checked() -> None:
    study = Study.model_validate(VALUES | {"data": {"train_examples": 10**9, "eval_examples": 10}})
    with pytest.raises(UserError, match=r"^study small: data\.train_examples: 1,000,000,000 different questions"):
        study.check()
    Study.model_validate(VALUES).check()
    both = VALUES | {"search": VALUES["search"] | {"task": {"terms": {"grid": [5, 6]}}}}
    with pytest.raises(ValidationError, match="terms is both searched and set"):
        Study.model_validate(both)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe.batch_size": 0}, "Study.with_changes: recipe.batch_size: got 0, must be at least 1"),
        ({"recipe.bach_size": 4}, 'recipe.bach_size: there is no such setting. Did you mean "batch_size"?'),
        ({"task.kind": "modularsum"}, 'task.kind: got "modularsum". Did you mean "modular_sum"?'),
        ({"search.learning_rat": {"grid": [0.1]}}, "search.learning_rat: nothing of this name can be searched"),
        (
            {"recipe.learning_rate": 0.1},
            "search.learning_rate: learning_rate is both searched and set in [recipe]",
        ),
        ({"name": "a/b"}, 'Study.with_changes: name: got "a/b"'),
        ({"seeds": [object()]}, "Study.with_changes: seeds[0]: got <object object"),
        ({"recipe": None}, "recipe: is missing"),
        ({"question": "\ud800"}, "Study.with_changes: question: is not UTF-8 text"),
        ({3: 32}, 'settings have dotted names, as in {"recipe.batch_size": 32}; got 3'),
        ({"recipe..batch_size": 32}, "got 'recipe..batch_size'"),
        ([("name", "a")], "Study.with_changes: takes a mapping such as"),
    ],
)
def test_a_mistake_in_python_is_named_by_its_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Study.of(**VALUES).with_changes(changes)
    assert said in str(caught.value)


def test_a_section_that_holds_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["task"] = endless
    with pytest.raises(UserError, match=r"^Study\.of: is nested too deeply"):
        Study.of(**VALUES | {"task": endless})


def test_numbers_of_numpy_and_ranges_are_numbers_and_lists(tmp_path: Path) -> None:
    changes = {"seeds": range(2), "recipe.batch_size": np.int64(8)}
    assert Study.of(**VALUES).with_changes(changes) == Study.of(**VALUES).with_changes(
        {"seeds": [0, 1], "recipe.batch_size": 8}
    )


def test_sections_in_python_are_answered_as_those_of_a_file() -> None:
    with pytest.raises(UserError, match=r"^Study\.of: seeds: got \[\], must not be empty$"):
        Study.of(**VALUES | {"seeds": []})
    with pytest.raises(UserError, match=r'Study\.of: tsak: there is no such setting\. Did you mean "task"\?'):
        Study.of(**VALUES | {"tsak": {}})


def test_changes_are_those_of_a_file(tmp_path: Path) -> None:
    study = load(tmp_path)
    assert study.with_changes({"recipe.batch_size": 32}) == load(
        tmp_path, changed(("batch_size = 16", "batch_size = 32"))
    )
    narrow = {"log_uniform": [1e-3, 2e-3]}
    there = load(tmp_path, changed(("[1e-4, 1e-3]", "[1e-3, 2e-3]")))
    assert study.with_changes({"search.learning_rate": narrow}) == there
    assert study.with_changes({"search.recipe.learning_rate.log_uniform": (1e-3, 2e-3)}) == there
    assert (
        study.with_changes({"search.learning_rate": None, "recipe.learning_rate": 0.1}).recipe["learning_rate"] == 0.1
    )
    assert study.with_changes({"search.batch_size": {"grid": [8, 32]}}).trials[0].recipe.batch_size == 8
    deep = study.with_changes({"search.task.terms": {"grid": [4, 6]}})
    assert [trial.task.model_dump()["terms"] for trial in deep.trials[:2]] == [4, 6]
    assert deep.with_changes({"search.task.terms": None, "task.terms": 6}) == study


SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "recipe.batch_size": st.sampled_from([8, 16, 32]),
    "recipe.schedule": st.sampled_from(["constant", "linear"]),
    "task.terms": st.integers(5, 7),
    "task.style": st.sampled_from(["equation", "operand"]),
    "data.seed": st.integers(0, 2**40),
    "search.learning_rate": st.sampled_from([{"grid": [1e-3, 1e-4]}, {"uniform": [1e-4, 1e-3]}]),
    "search.beta_1": st.sampled_from([{"grid": [0.5, 0.9]}]),
    "stop": st.sampled_from([{"kind": "asha"}, {"kind": "median"}]),
    "seeds": st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
    "evaluation.validation_examples": st.integers(1, 100),
}


@QUIET
@given(st.fixed_dictionaries({}, optional=SETTINGS))
def test_changes_at_once_or_one_after_another_give_the_same_study(changes: dict[str, Any]) -> None:
    study = Study.of(**VALUES)
    at_once = study.with_changes(changes)
    stepwise = study
    for key, value in changes.items():
        stepwise = stepwise.with_changes({key: value})
    assert at_once == stepwise
    assert at_once.fingerprint == stepwise.fingerprint
    again = Study.of(**at_once.definition())
    assert again == at_once
    assert again.trials == at_once.trials


NO_MAX = ("max_examples = 1_600\n", "")
EVERY = ("every_examples = 160\n", "")


def budgeted(unit: str, amount: float) -> str:
    return changed(NO_MAX, EVERY) + f'\n[budget]\nunit = "{unit}"\namount = {amount}\n'


def test_a_budget_in_examples_is_what_max_examples_says(tmp_path: Path) -> None:
    by_recipe, by_budget = load(tmp_path, changed(EVERY)), load(tmp_path, budgeted("examples", 1600))
    assert [trial.recipe for trial in by_recipe.trials] == [trial.recipe for trial in by_budget.trials]
    assert [trial.budget for trial in by_recipe.trials] == [trial.budget for trial in by_budget.trials]
    assert planned_examples(by_budget.trials[0]) == 1600
    assert evaluate_every(by_budget.trials[0]) == 80


@pytest.mark.parametrize(("unit", "amount"), [("tokens", 100_000), ("flops", 3e11)])
def test_a_budget_in_another_unit_pays_for_more_examples_where_they_are_shorter(
    tmp_path: Path, unit: str, amount: float
) -> None:
    study = load(tmp_path, budgeted(unit, amount))
    none, long = study.trials[:2]
    assert none.recipe.max_examples is None
    assert (none.budget.unit, none.budget.amount) == (unit, amount)
    short, many = planned_examples(long), planned_examples(none)
    assert short is not None
    assert many is not None
    assert 16 < short < many
    assert short % 16 == many % 16 == 0
    assert evaluate_every(none) == max(16, many // 20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (budgeted("steps", 3), 'budget.unit: got "steps", must be one of: examples, tokens, flops.'),
        (budgeted("flops", 0), "budget.amount: got 0, must be above 0"),
        (budgeted("tokens", 30), "budget.amount: got 30 tokens, with which no run can begin: the first batch of 16"),
        (budgeted("examples", 0.5), "budget.amount: got 0.5, must be at least 1, as unit is examples"),
        (budgeted("examples", 8), "budget.amount: got 8, which is less than one batch"),
        (
            budgeted("tokens", 10_000).replace("batch_size = 16", "batch_size = 16\nwarmup_examples = 5_000"),
            "recipe.warmup_examples: got 5,000, but the budget of 10,000 tokens pays for about",
        ),
        (
            budgeted("tokens", 10_000) + "[evaluation]\nevery_examples = 9_000\n",
            "evaluation.every_examples: got 9,000, but the budget",
        ),
        (
            changed() + '\n[budget]\nunit = "tokens"\namount = 3e5\n',
            "recipe.max_examples: [budget] ends each run",
        ),
        (changed(NO_MAX, EVERY), "recipe.max_examples: is missing: set max_examples = ... in [recipe]"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_with_what_it_comes_to(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text.replace("\n[evaluation]\n\n", "\n"))
    assert said in str(caught.value)
