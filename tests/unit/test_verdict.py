"""Laws of the verdict on somebody's table: the same answer as a study's, whatever the order, and no fault accepted."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.cli.main import DONE, USER_ERROR, main
from showhow.errors import UserError
from showhow.evidence.compare import compare
from showhow.evidence.design import Design
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.verdict import verdict
from showhow.sections.arm import Arm

Columns = dict[str, list[Any]]
QUESTIONS = 20


def table(rights: dict[str, list[int]], questions: int = QUESTIONS, **more: Any) -> Columns:
    """A table in which each arm's run answers the first so many questions right; more: columns by the run's arm."""
    rows = [
        (arm, seed, f"{place:02}+1=", place < right)
        for arm, by_seed in rights.items()
        for seed, right in enumerate(by_seed)
        for place in range(questions)
    ]
    columns = dict(zip(("arm", "seed", "question", "right"), map(list, zip(*rows, strict=True)), strict=True))
    return columns | {name: [by_arm[arm] for arm in columns["arm"]] for name, by_arm in more.items()}


GOOD = {"plain": [2, 3, 2, 2], "mixup": [20, 19, 20, 20]}


def test_a_table_is_judged_as_the_runs_of_a_study_are() -> None:
    arms = tuple(Arm(name=name, values={"arm": name}) for name in sorted(GOOD))
    runs = [
        RunOutcome(
            arm, arm, seed, {}, "finished", selection=right / 20, grades=tuple(place < right for place in range(20))
        )
        for arm, by_seed in GOOD.items()
        for seed, right in enumerate(by_seed)
    ]
    expected = compare(runs, 0.1, None, design=Design(by=("arm",), arms=arms, shows_spending=True, is_timed=False))
    assert verdict(table(GOOD), chance=0.1) == expected
    assert expected.verdict("mixup", "plain") == "better"
    assert expected.conclusion[0] == (
        "With mixup the model learns the task with every seed; with plain it does no better than guessing."
    )
    assert expected.recommend is not None


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 8), min_size=1, max_size=3), min_size=1),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_and_columns_changes_nothing(rights: dict[str, list[int]], rng: random.Random) -> None:
    columns = table(rights, questions=8)
    order = rng.sample(range(len(columns["arm"])), len(columns["arm"]))
    shuffled = {name: [columns[name][row] for row in order] for name in rng.sample(list(columns), len(columns))}
    assert verdict(shuffled) == verdict(columns)
    assert verdict(pandas.DataFrame(shuffled)) == verdict(columns)


@pytest.mark.parametrize(
    "as_written",
    [int, float, lambda right: str(right), lambda right: str(right).lower(), lambda right: str(int(right))],
)
def test_right_may_be_written_in_several_ways(as_written: Callable[[bool], Any]) -> None:
    columns = table(GOOD)
    assert verdict(columns | {"right": [as_written(right) for right in columns["right"]]}) == verdict(columns)


def test_arms_are_compared_within_a_setting_and_never_across() -> None:
    small, large = table(GOOD), table({"plain": [20] * 4, "mixup": [20] * 4}, questions=30)
    both = {name: [*small[name], *large[name]] for name in small}
    both["setting"] = ["small"] * len(small["arm"]) + ["large"] * len(large["arm"])
    result = verdict(both)
    assert [(row.setting, row.arm, row.questions) for row in result.rows] == [
        ({"setting": size}, arm, questions)
        for size, questions in (("large", 30), ("small", 20))
        for arm in ("mixup", "plain")
    ]
    assert result.verdict("mixup", "plain", {"setting": "small"}) == "better"
    assert result.verdict("mixup", "plain", {"setting": "large"}) == "same"


def test_explanation_levels_stand_in_their_order_and_categories_in_theirs() -> None:
    levels = verdict(table({"long": [3], "none": [2], "short": [1]}))
    assert [row.arm for row in levels.rows] == ["none", "short", "long"]
    frame = pandas.DataFrame(table({"b": [3], "a": [2], "c": [1]}))
    frame["arm"] = pandas.Categorical(frame["arm"], categories=["c", "a", "b", "unused"])
    assert [row.arm for row in verdict(frame).rows] == ["c", "a", "b"]


def test_what_runs_spent_is_shown_and_says_which_is_the_cheapest() -> None:
    equal = {"plain": [20] * 4, "mixup": [20] * 4}
    result = verdict(table(equal, flops={"plain": 1e9, "mixup": 2e9}, examples={"plain": 5, "mixup": 5}))
    assert (result.row("plain").flops, result.row("mixup").examples) == (1e9, (5, 5, 5, 5))
    assert result.recommend is not None
    assert result.recommend.arm == "plain"
    assert verdict(table(equal)).recommend is None


def test_a_control_is_never_recommended() -> None:
    result = verdict(table({"real": [20] * 4, "placebo": [2] * 4}, is_control={"real": 0, "placebo": 1}))
    assert [row.is_control for row in result.rows] == [True, False]
    assert "Real does better than the placebo control." in result.conclusion


def trials(**more: list[float]) -> Columns:
    good_on_test, good_on_validation = table({"plain": [20] * 3}), table({"plain": [10] * 3})
    both = {name: [*good_on_test[name], *good_on_validation[name]] for name in good_on_test}
    both["trial"] = ["a"] * 60 + ["b"] * 60
    return both | {name: [first] * 60 + [second] * 60 for name, (first, second) in more.items()}


def test_the_best_trial_is_chosen_by_validation_where_the_table_has_it_and_else_it_says_so() -> None:
    chosen = verdict(trials(validation=[0.4, 0.6]))
    assert (chosen.rows[0].trial, chosen.notes) == ("b", ())
    optimistic = verdict(trials())
    assert optimistic.rows[0].trial == "a"
    assert optimistic.notes == (
        "plain: the best of 2 trials, chosen by the test questions themselves, so its accuracy is optimistic; a column "
        "validation says by what to choose",
    )


def spoilt(column: str, row: int, value: Any) -> Columns:
    columns = table(GOOD, tokens={"plain": 100, "mixup": 100}, validation={"plain": 0.5, "mixup": 0.5})
    return columns | {column: [*columns[column][: row - 1], value, *columns[column][row:]]}


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("right", 2, 'column "right", row 7: got 2, must be true or false, 1 or 0'),
        ("right", "yes", "got 'yes', must be true or false"),
        ("right", None, 'column "right", row 7: the value is missing'),
        ("right", math.nan, "the value is missing"),
        ("right", [True], "got [True]"),
        ("seed", 1.5, 'column "seed", row 7: got 1.5, must be a whole number'),
        ("seed", "one", "got 'one'"),
        ("seed", math.inf, "got inf"),
        ("seed", True, "got True"),
        ("arm", " ", "column \"arm\", row 7: got ' ', must be text"),
        ("arm", None, "the value is missing"),
        ("question", math.nan, 'column "question", row 7'),
        ("tokens", -1, 'column "tokens", row 7: got -1, must be 0 or more'),
        ("tokens", math.inf, "got inf"),
        ("tokens", "many", "got 'many'"),
        ("tokens", 101, "it must be the same in all rows of a run"),
        ("validation", 1.5, "must be a share from 0 to 1"),
        ("question", "00+1=", "rows 1 and 7 both grade question '00+1=' of the run (arm plain, seed 0)"),
        ("question", "other", "not the same ones: only one of them has '06+1='"),
    ],
)
def test_each_fault_is_named_with_column_row_and_what_is_allowed(column: str, value: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        verdict(spoilt(column, 7, value))
    assert said in str(caught.value)


@pytest.mark.parametrize("missing", ["arm", "seed", "question", "right"])
def test_a_missing_column_is_named_with_the_nearest_one(missing: str) -> None:
    columns = table(GOOD)
    columns[f"{missing}s"] = columns.pop(missing)
    with pytest.raises(UserError, match=f'no column "{missing}". Did you mean "{missing}s"'):
        verdict(columns)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({name: [] for name in ("arm", "seed", "question", "right")}, "has no rows"),
        ({}, 'no column "arm"'),
        ([1, 2], "got list"),
        (table(GOOD) | {"seed": [0]}, "equally long"),
        (table(GOOD) | {"seed": 0}, 'column "seed" must be a sequence'),
        (table({"a": [1]}, is_control={"a": True}) | {"is_control": [True] + [False] * 19}, "a control or not"),
    ],
)
def test_what_is_no_table_is_refused(frame: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        verdict(frame)


IMPOSSIBLE = [{"chance": -0.1}, {"baseline": 1.1}, {"chance": 0.96}, {"solved_at": math.nan}]


@pytest.mark.parametrize("marks", [*IMPOSSIBLE, {"chance": "0.1"}, {"chance": None}, {"baseline": [0.1]}])
def test_impossible_marks_are_refused(marks: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        verdict(table(GOOD), **marks)


def test_columns_may_be_whatever_yields_values() -> None:
    assert verdict({name: iter(values) for name, values in table(GOOD).items()}) == verdict(table(GOOD))


def test_another_duplicate_may_be_a_trial_of_its_own() -> None:
    twice = {name: [*values, *values] for name, values in table({"a": [1]}).items()}
    with pytest.raises(UserError, match="add a column trial"):
        verdict(twice)
    assert verdict(twice | {"trial": ["x"] * 20 + ["y"] * 20}).rows[0].runs == 2


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_the_command_judges_files(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    file, frame = tmp_path / f"runs.{ending}", pandas.DataFrame(table({"None": [2] * 4, "mixup": [20] * 4}))
    if ending == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, sep="," if ending == "csv" else "\t")
    assert main(["verdict", str(file), "--chance", "0.1"]) == DONE
    out = capsys.readouterr().out
    assert "With mixup the model learns the task with every seed" in out
    assert "None" in out
    assert main(["verdict", str(file), "--json"]) == DONE
    assert '"conclusion"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no.csv", None, "there is no such file"),
        ("runs.xlsx", b"", "a .csv, .tsv or .parquet file"),
        ("empty.csv", b"", "cannot be read as .csv"),
        ("bytes.csv", b"\xff\xfe\x00", "cannot be read as .csv"),
        ("no.parquet", b"arm", "cannot be read as .parquet"),
        ("gap.csv", b"arm,seed,question,right\na,0,q,\n", 'column "right", row 1: the value is missing'),
        ("ragged.csv", b"arm,seed,question,right\na,0,q,1,1,1\nb,0\n", "ragged.csv"),
    ],
)
def test_a_file_that_is_no_table_is_a_mistake_to_mend(
    tmp_path: Path, name: str, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["verdict", str(tmp_path / name)]) == USER_ERROR
    assert said in capsys.readouterr().err
