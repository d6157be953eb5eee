"""Laws of the result table: it fits any terminal, drops whole columns by importance, and formats alike everywhere."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from showhow.evidence.compare import compare
from showhow.evidence.design import Design
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.table import Column, ResultTable, fit, result_table
from showhow.evidence.wording import duration, listed, param, share, varying
from showhow.sections.arm import Arm


def run(level: str, seed: int, right: int, until: int | None, learning_rate: float = 1.2e-3) -> RunOutcome:
    return RunOutcome(
        arm=level,
        level=level,
        trial="a",
        seed=seed,
        params={"learning_rate": learning_rate, "batch_size": 32},
        status="finished",
        selection=right / 100,
        grades=tuple(place < right for place in range(100)),
        steps_right=None if level == "none" else right / 100,
        tokens_per_reply=1.0 if level == "none" else 31.0,
        examples=until or 60_000,
        budget=60_000,
        examples_until_solved=until,
        seconds=80.0,
        splits={"longer": 0.5},
    )


def outcomes() -> list[RunOutcome]:
    none = [run("none", seed, 10 + seed, None) for seed in range(3)]
    short = [run("short", seed, 100 if seed else 15, 34_000 if seed else None) for seed in range(3)]
    medium = [run("medium", seed, 100, 29_000 + 6_000 * seed, learning_rate=2e-3) for seed in range(3)]
    return none + short + medium


def printed(table: ResultTable, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def table(runs: list[RunOutcome]) -> ResultTable:
    return result_table(compare(runs, 0.10, 0.11), "quickstart", "How much explanation does it need?")


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_cut(width: int) -> None:
    text = printed(table(outcomes()), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    assert "0.72 [0.1" in text
    assert "2 of 3" in text
    assert "34,000-never" in text


def test_a_wide_terminal_shows_all_and_a_narrow_one_names_what_it_hides() -> None:
    assert "not shown" not in printed(table(outcomes()), 140)
    narrow = printed(table(outcomes()), 80)
    assert "not shown at this width: " in narrow
    assert "runs (stopped early)" in " ".join(narrow.split())


def test_only_params_that_differ_between_the_rows_are_columns() -> None:
    wide = printed(table(outcomes()), 200)
    assert "learning rate" in wide
    assert "2e-3" in wide
    assert "batch" not in wide


def test_what_never_happened_and_what_was_not_measured_look_different() -> None:
    (none_line,) = [line for line in printed(table(outcomes()), 140).splitlines() if line.startswith("none")]
    assert "never" in none_line
    assert " - " in none_line


def test_a_level_without_a_complete_trial_invents_nothing() -> None:
    missing = [replace(each, grades=None, status="interrupted") for each in outcomes() if each.arm == "medium"]
    text = printed(table([each for each in outcomes() if each.arm != "medium"] + missing), 140)
    assert "no complete trial" in text
    assert "medium: 3 of 3 runs have not ended" in text


def test_a_failed_seed_is_marked_and_counts_as_unsolved() -> None:
    runs = outcomes()
    runs[-1] = replace(runs[-1], grades=None, status="failed", reason="loss is not a number [step 3]")
    text = printed(table(runs), 140)
    assert "1.00 [1.00, 1.00]*" in text
    assert "* medium: without failed seed 2" in text
    assert "(loss is not a number [step 3])" in text


def test_the_caption_says_what_guessing_gives() -> None:
    assert "chance 0.10 · always the commonest answer 0.11" in printed(table(outcomes()), 140)


SIZES = ("google-t5/t5-small", "models/t5-base")


def of_sizes() -> list[RunOutcome]:
    return [
        replace(
            each,
            trial=f"{each.trial}-{size}",
            setting={"model.name": size},
            params={**each.params, "model.name": size},
        )
        for size in SIZES
        for each in outcomes()
    ]


def by_size(runs: list[RunOutcome]) -> ResultTable:
    design = Design(settings=tuple({"model.name": size} for size in SIZES))
    return result_table(compare(runs, 0.10, 0.11, design=design), "sizes", "Which?")


def test_a_study_within_several_models_has_a_row_for_each_model_and_level() -> None:
    shown = printed(by_size(of_sizes()), 140)
    lines = [line.split() for line in shown.splitlines()]
    assert [line[:2] for line in lines if line and line[0].startswith("t5-")] == [
        [size, level] for size in ("t5-small", "t5-base") for level in ("none", "short", "medium")
    ]
    assert "best model" not in shown


def test_notes_name_the_setting_where_seeds_are_missing() -> None:
    runs = of_sizes()
    runs[-1] = replace(runs[-1], grades=None, status="failed")
    assert "* model t5-base, medium: without failed seed 2" in printed(by_size(runs), 140)


def by_method_and_level(shows_spending: bool) -> ResultTable:
    pairs = [(method, level) for method in ("plain", "random") for level in ("none", "long")]
    arms = tuple(
        Arm(name=f"{method}, {level}", values={"method": method, "explanation": level}, is_control=method == "random")
        for method, level in pairs
    )
    runs = [
        replace(run(arm.name, seed, 60, None), tokens=2_400_000.0, flops=3.1e13, params={"method.alpha": len(arm.name)})
        for arm in arms
        for seed in range(3)
    ]
    design = Design(by=("method", "explanation"), arms=arms, shows_spending=shows_spending)
    return result_table(compare(runs, 0.10, 0.11, design=design), "two", "Which?")


def test_each_axis_that_is_compared_is_a_column_and_what_belongs_to_it_is_none() -> None:
    columns = by_method_and_level(shows_spending=False).columns
    assert [column.name for column in columns[:2]] == ["method", "explanation"]
    assert columns[0].cells == ("plain", "plain", "random", "random")
    assert columns[1].cells == ("none", "long", "none (control)", "long (control)")
    assert not any("alpha" in column.name or ("per run" in column.name and column.rank < 20) for column in columns)


def test_what_was_spent_is_shown_in_three_units_where_it_is_asked_for() -> None:
    cells = {column.name: column.cells[0] for column in by_method_and_level(shows_spending=True).columns}
    spent = [cells[f"{unit} per run"] for unit in ("examples", "tokens", "FLOPs")]
    assert spent == ["60,000", "2.4e6", "3.1e13"]


def test_an_empty_result_still_renders() -> None:
    assert "explanation" in printed(table([]), 80)


columns = st.lists(
    st.builds(
        Column, st.text("abc ", min_size=1, max_size=12), st.tuples(st.text("xy", max_size=15)), st.integers(0, 9)
    ),
    max_size=9,
)


@given(columns, st.integers(1, 150))
def test_columns_fit_unless_only_the_indispensable_are_left(given_columns: list[Column], width: int) -> None:
    shown, hidden = fit(given_columns, width)
    assert len(shown) + len(hidden) == len(given_columns)
    assert [column for column in given_columns if any(column is each for each in shown)] == shown
    assert all(column.rank > 0 for column in hidden)
    if any(column.rank > 0 for column in shown):
        assert sum(column.width for column in shown) + 2 * (len(shown) - 1) <= width


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2e-3, "1.2e-3"),
        (2e-3, "2e-3"),
        (5e-05, "5e-5"),
        (0.1, "0.1"),
        (0.0, "0"),
        (1.0, "1"),
        (2_000, "2,000"),
        (True, "yes"),
        (None, "-"),
        ("cosine", "cosine"),
        ([1, 2], "1, 2"),
        ({"a": 1}, "a 1"),
        (3e6, "3e6"),
    ],
)
def test_params_are_written_briefly(value: object, text: str) -> None:
    assert param(value) == text  # type: ignore[arg-type]


def test_words_for_people() -> None:
    assert [duration(seconds) for seconds in (0.4, 8, 60, 252, 7500, 3600)] == [
        "0 s",
        "8 s",
        "1 min",
        "4 min 12 s",
        "2 h 5 min",
        "1 h",
    ]
    assert listed(["a", "b", "c"], "or") == "a, b or c"
    assert (share(0.714), share(1.0), share(None)) == ("0.71", "1.00", "-")
    assert varying([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1}]) == ("b",)
