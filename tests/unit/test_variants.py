"""Laws of named variants: an axis picks one, what sets a field of another is left out, and each mistake has its
line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studies import TEXT, changed, complaint, line_of, load

from showhow.errors import UserError
from showhow.sections.adapter import Lora
from showhow.study.search_space import SearchSpace, applies
from showhow.study.study import Study

SCRATCH = 'kind = "scratch"\narchitecture = "llama"\nhidden_size = 64\nlayers = 2'
HUB = (SCRATCH, 'kind = "pretrained"\nname = "somebody/something"')
LR = "learning_rate = { log_uniform = [1e-4, 1e-3] }"
GRID = 'explanation = { grid = ["none", "long"] }'
ADAPTERS = '[adapter.lora]\nkind = "lora"\n[adapter.wide]\nkind = "lora"\nrank = 64\n'
PICKS = 'adapter.grid = ["lora", "wide", "none"]'
TASK = '[task]\nkind = "modular_sum"\nterms = 6'
EASY = '[task.easy]\nkind = "modular_sum"\nterms = 4\n[task.hard]\nkind = "modular_sum"\nterms = 6'
TASKS = 'task = { grid = ["easy", "hard"] }'


def with_adapters(*more: tuple[str, str], axes: str = PICKS) -> str:
    return changed(HUB, (LR, f"{LR}\n{axes}"), *more) + ADAPTERS


def test_each_trial_has_the_variant_that_its_point_picks(tmp_path: Path) -> None:
    study = load(tmp_path, with_adapters())
    assert {trial.point["adapter"]: trial.adapter for trial in study.trials} == {
        "lora": Lora(kind="lora"),
        "wide": Lora(kind="lora", rank=64),
        "none": None,
    }
    study = load(tmp_path, changed((TASK, EASY), (LR, f"{LR}\n{TASKS}")))
    assert {trial.point["task"]: trial.task.model_dump()["terms"] for trial in study.trials} == {"easy": 4, "hard": 6}


def test_a_kind_that_needs_no_parameters_may_be_picked_without_a_table(tmp_path: Path) -> None:
    study = load(tmp_path, changed(HUB, (LR, f'{LR}\nadapter = {{ grid = ["lora", "none"] }}')))
    assert isinstance(study.adapter, dict)
    assert study.adapter == {"lora": Lora(kind="lora")}
    plain = load(tmp_path, changed((LR, f'{LR}\nmethod = {{ grid = ["plain"] }}')))
    assert plain.trials[0].method.kind == "plain"
    assert plain.definition()["method"] == {"plain": {"kind": "plain", "answer_weight": 1.0}}


@pytest.mark.parametrize(
    "axes",
    [
        'adapter.grid = ["lora", "wide", "none"]\nadapter.lora.rank = { grid = [4, 8] }',
        'adapter = { grid = ["lora", "wide", "none"] }\n"adapter.lora.rank" = { grid = [4, 8] }',
        'adapter = { grid = ["lora", "wide", "none"], lora.rank = { grid = [4, 8] } }',
    ],
)
def test_an_axis_of_a_variant_is_searched_in_its_trials_alone(tmp_path: Path, axes: str) -> None:
    text = changed(HUB, (LR, axes), ("batch_size = 16", "batch_size = 16\nlearning_rate = 1e-3")) + ADAPTERS
    points = [(trial.point["adapter"], trial.point.get("adapter.lora.rank")) for trial in load(tmp_path, text).trials]
    assert points == [("lora", 4), ("lora", 8), ("wide", None), ("none", None)] * 2  # without and with explanation
    ranks = [trial.adapter.rank for trial in load(tmp_path, text).trials if isinstance(trial.adapter, Lora)]
    assert ranks == [4, 8, 64] * 2


def test_the_adapter_none_needs_no_table(tmp_path: Path) -> None:
    study = load(tmp_path, changed((LR, f'{LR}\nadapter = {{ grid = ["none"] }}')))
    assert {trial.adapter for trial in study.trials} == {None}


def test_every_value_of_a_variants_axis_is_checked_and_named_at_it(tmp_path: Path) -> None:
    text = with_adapters(axes=f"{PICKS}\nadapter.wide.dropout = {{ grid = [0.0, 2.0] }}")
    line = line_of(text, "adapter.wide.dropout")
    assert complaint(tmp_path, text) == f"study.toml:{line}: search.adapter.wide.dropout: got 2.0, must be at most 1.0"


def test_what_is_wrong_with_a_variant_is_named_at_it(tmp_path: Path) -> None:
    text = with_adapters().replace("rank = 64", "rank = 0")
    assert (
        complaint(tmp_path, text)
        == f"study.toml:{line_of(text, 'rank = 0')}: adapter.wide.rank: got 0, must be at least 1"
    )
    text = with_adapters().replace("rank = 64", "rnak = 6")
    assert 'adapter.wide.rnak: there is no such setting. Did you mean "rank"?' in complaint(tmp_path, text)
    text = (
        with_adapters()
        .replace("rank = 64", 'targets = ["nothing"]\nrank = 64')
        .replace('[adapter.wide]\nkind = "lora"', '[adapter.wide]\nkind = "lroa"')
    )
    assert f'study.toml:{line_of(text, "lroa")}: adapter.wide.kind: got "lroa". Did you mean "lora"?' in complaint(
        tmp_path, text
    )
    text = changed((TASK, EASY.replace("terms = 6", "terms = 2\nbelow = 10")), (LR, f"{LR}\n{TASKS}"))
    line = line_of(text, "train_examples")
    answer = complaint(tmp_path, text)
    assert 'search.task: with "hard": 2,000 different questions wanted' in answer or f"study.toml:{line}" in answer


MISTAKES = [
    # axes of the search, sections, the place that is named, what is said
    (
        'adapter = { grid = ["lora", "wdie"] }',
        ADAPTERS,
        "adapter = {",
        ['"wdie" is neither a variant', 'Did you mean "wide"?', "Allowed: lora, wide"],
    ),
    (
        'adapter = { grid = ["lora"] }',
        ADAPTERS,
        "[adapter.wide]",
        ["adapter.wide: no axis names this variant; add it to search.adapter"],
    ),
    (
        "",
        ADAPTERS,
        "[adapter.lora]",
        ["adapter: has the variants lora, wide, and no axis picks one: write adapter = { grid"],
    ),
    (
        PICKS,
        '[adapter]\nkind = "lora"\n',
        "adapter.grid",
        ["adapter is both searched and set in [adapter]; name the variants, as in [adapter.lora]"],
    ),
    ("adapter = { uniform = [0, 1] }", ADAPTERS, "adapter = {", ["search.adapter: variants are picked one by one"]),
    ("adapter = { grid = [1] }", "", "adapter = {", ["search.adapter: 1 is neither a variant"]),
    (
        f"{PICKS}\nadapter.rank = {{ grid = [4] }}",
        ADAPTERS,
        "adapter.rank",
        ["nothing of this name can be searched", 'Did you mean "adapter.'],
    ),
    (
        f"{PICKS}\nadapter.lora.rnak = {{ grid = [4] }}",
        ADAPTERS,
        "adapter.lora.rnak",
        ['Did you mean "adapter.lora.rank"?', "[adapter.lora] has: rank"],
    ),
    (
        f"{PICKS}\nadapter.wide.rank = {{ grid = [4] }}",
        ADAPTERS,
        "adapter.wide.rank",
        ["rank is both searched and set in [adapter.wide]"],
    ),
    (
        f"{PICKS}\nadapter.thin.rank = {{ grid = [4] }}",
        ADAPTERS,
        "adapter.thin",
        ["nothing of this name can be searched"],
    ),
    (
        'adapter = { grid = ["none", "lora"] }',
        ADAPTERS.replace("wide", "none"),
        "[adapter.none]",
        ['a variant may not be called "none"'],
    ),
    (
        'adapter = { grid = ["lora", "wide", "bare"] }',
        ADAPTERS + '[adapter.bare]\nkind = "lora"\n',
        "[adapter.bare]",
        ['the variants "lora" and "bare" are the same; remove one'],
    ),
    (
        'adapter = { grid = ["lora", "dora"] }',
        ADAPTERS.replace("wide", "dora"),
        "[adapter.dora]",
        ['the variant "dora" is of the kind "lora"; rename it'],
    ),
    (
        'adapter = { grid = ["lora", " "] }',
        ADAPTERS.replace("wide", '" "'),
        '[adapter." "]',
        ['a variant needs a name that can be printed, got " "'],
    ),
    ('method = "optuna"', "", "method =", ['got "optuna", but method is an axis', 'set by algorithm = "optuna"']),
    ('method = { grid = ["plian"] }', "", "method =", ['"plian" is neither a variant', 'Did you mean "plain"?']),
    ('task = { grid = ["imported"] }', "", "task = {", ["is both searched and set in [task]"]),
    (
        f'algorithm = "optuna"\n{PICKS}\nadapter.lora.rank = {{ grid = [4, 8] }}',
        ADAPTERS,
        "adapter.lora.rank",
        ['compare by "adapter" or within it'],
    ),
]


@pytest.mark.parametrize(("axes", "sections", "place", "said"), MISTAKES)
def test_a_mistake_in_variants_is_answered_with_its_line_and_what_is_allowed(
    tmp_path: Path, axes: str, sections: str, place: str, said: list[str]
) -> None:
    text = changed(HUB, (LR, f"{LR}\n{axes}")) + sections
    answer = complaint(tmp_path, text)
    assert f"study.toml:{line_of(text, place)}: " in answer
    for part in said:
        assert part in answer


def test_variants_of_the_same_fields_differ_where_one_is_searched(tmp_path: Path) -> None:
    axes = 'adapter.grid = ["lora", "bare"]\nadapter.bare.rank.grid = [4, 8]'
    text = changed(HUB, (LR, f"{LR}\n{axes}")) + '[adapter.lora]\nkind = "lora"\n[adapter.bare]\nkind = "lora"\n'
    assert {trial.adapter.rank for trial in load(tmp_path, text).trials if isinstance(trial.adapter, Lora)} == {
        4,
        8,
        16,
    }


def test_a_kind_picked_without_a_table_that_needs_one_is_placed_at_the_axis(tmp_path: Path) -> None:
    text = changed(
        (f"{TASK}\n", ""), (LR, f'{LR}\ntask = {{ grid = ["imported"] }}'), ("eval_splits.longer = { terms = 8 }", "")
    )
    assert f"study.toml:{line_of(text, 'task = {')}: task.imported.path: is missing" in complaint(tmp_path, text)


def test_a_method_that_a_trial_cannot_use_is_placed_where_it_is_picked(tmp_path: Path) -> None:
    section = '\n[method]\nkind = "step_by_step"\n'
    text = changed() + section
    said = 'method: step_by_step learns from explanations, and the level "none" has none'
    assert complaint(tmp_path, text).startswith(f"study.toml:{line_of(text, '[method]')}: {said}")
    picked = changed((LR, f'{LR}\nmethod = {{ grid = ["plain", "step_by_step"] }}'))
    answer = complaint(tmp_path, picked)
    assert answer.startswith(f"study.toml:{line_of(picked, 'method = {')}: method.step_by_step: step_by_step learns")
    named = changed((LR, f'{LR}\nmethod.grid = ["plain", "a"]'), ("batch_size = 16", "batch_size = 15"))
    named += '\n[method.a]\nkind = "sftmix"\n'
    answer = complaint(tmp_path, named)
    assert f"study.toml:{line_of(named, '[method.a]')}: method.a: sftmix pairs the rows of a batch" in answer


def test_sftmix_is_refused_where_its_reference_or_its_pairs_cannot_be(tmp_path: Path) -> None:
    text = changed((LR, f'{LR}\nmethod.grid = ["sftmix"]'))
    short = text.replace("max_examples", "# max_examples") + '\n[budget]\nunit = "examples"\namount = 160\n'
    assert "the share of 0.25 of the budget pays for about 2 batches; raise the budget" in complaint(tmp_path, short)
    spread = text.replace("batch_size = 16", "batch_size = 18").replace(
        "[resources]", "[resources]\ndevices_per_trial = 2"
    )
    assert "divided among 2 devices; make it a multiple of 4" in complaint(tmp_path, spread)


def test_methods_are_compared_at_one_level(tmp_path: Path) -> None:
    level = ("eval_examples = 100", 'eval_examples = 100\nexplanation = "long"')
    axes = (f"{GRID}\n", 'method = { grid = ["plain", "step_by_step", "sftmix"] }\n')
    study = load(tmp_path, changed(level, axes) + '\n[compare]\nby = ["method"]\n')
    assert [arm.name for arm in study.arms] == ["plain", "step_by_step", "sftmix"]
    assert [trial.method.kind for trial in study.trials[:3]] == ["plain", "step_by_step", "sftmix"]
    control = study.with_changes({"method.sftmix.halves": "random"})
    assert [arm.is_control for arm in control.arms] == [False, False, True]


def test_optuna_may_tune_a_variants_axis_in_arms_that_have_it(tmp_path: Path) -> None:
    axes = f'algorithm = "optuna"\n{PICKS}\nadapter.lora.rank = {{ grid = [4, 8] }}'
    study = load(
        tmp_path, changed(HUB, (LR, f"{LR}\n{axes}")) + ADAPTERS + '[compare]\nby = ["adapter", "explanation"]\n'
    )
    assert len(study.arms) == 6


QUIET = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.lists(st.sampled_from(["a", "b", "c", "none"]), min_size=1, max_size=4, unique=True)


@QUIET
@given(NAMES, st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 3)), st.integers(1, 3))
def test_points_of_a_space_with_variants_are_distinct_and_hold_what_applies(
    names: list[str], sizes: dict[str, int], samples: int
) -> None:
    axes: dict[str, Any] = {"adapter": {"grid": names}, "rate": {"log_uniform": [1e-5, 1e-2]}}
    axes |= {f"adapter.{name}.rank": {"grid": list(range(1, size + 1))} for name, size in sizes.items()}
    points = SearchSpace.model_validate({"samples": samples, **axes}).points()
    assert len({json.dumps(point) for point in points}) == len(points)
    assert len(points) == samples * sum(sizes.get(name, 1) for name in names)
    assert all(applies(axis, point) for point in points for axis in point)
    assert all(axis in point for point in points for axis in axes if applies(axis, point))


@QUIET
@given(NAMES, st.lists(st.sampled_from([4, 8, 16]), min_size=1, unique=True), st.booleans())
def test_what_is_stored_of_a_study_with_variants_is_that_study(
    tmp_path: Path, names: list[str], ranks: list[int], is_compared: bool
) -> None:
    variants = {name: {"kind": "lora", "dropout": 0.1} for name in names if name != "none"}
    axes: dict[str, Any] = {
        "adapter": {"grid": names},
        **{f"adapter.{name}.rank": {"grid": ranks} for name in variants},
    }
    study = load(tmp_path, changed(HUB)).with_changes(
        {
            "adapter": variants or None,
            **{f"search.{axis}": grid for axis, grid in axes.items()},
            "compare.by": ["adapter" if is_compared else "explanation"],
        }
    )
    again = Study.of(**study.definition())
    assert again == study
    assert again.fingerprint == study.fingerprint
    assert again.trials == study.trials
    assert len(study.trials) == 2 * 2 * sum(1 if name == "none" else len(ranks) for name in names)


def test_a_file_with_variants_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert load(tmp_path, TEXT) == load(tmp_path, TEXT, "search.samples=2")
    with pytest.raises(UserError, match=r"study\.toml:\d+: is not valid TOML: \{ ... \} cannot be added to"):
        load(tmp_path, changed((LR, f'adapter = {{ grid = ["lora"] }}\nadapter.lora.rank = {{ grid = [4] }}\n{LR}')))
