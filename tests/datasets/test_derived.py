"""Laws of derived data: addressed by what makes them, made once, whatever the place; and what each operation does."""

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.datasets import derived
from showhow.datasets.dataset import Dataset
from showhow.datasets.derived import RowFunction
from showhow.datasets.generate import generate
from showhow.datasets.manifest import Derivation
from showhow.datasets.rows import balanced
from showhow.errors import TrialError
from showhow.methods.row import MATCHED, Row
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks import task_named
from showhow.tasks.explain import Level


def problems(home: Path, level: Level = Level.LONG, examples: int = 101) -> Dataset:
    task = task_named("modular_sum", {"terms": 5})
    of = DatasetSpec(task=task, level=level, split=TRAIN, examples=examples, seed=0, control_length=Level.LONG)
    return Dataset.open(generate(of, home, on_cluster=False))


def doubled(row: Row, weight: float = 1.0) -> list[Row]:
    return [row, row.with_(prompt="again " + row.prompt, weight=weight, seen=2)]


CALLS: list[Row] = []


def noted(row: Row) -> list[Row]:
    CALLS.append(row)
    return [row]


def test_a_problem_read_as_a_row_has_its_explanation_apart_from_its_answer(tmp_path: Path) -> None:
    for row in problems(tmp_path).rows():
        assert row.prompt == row.question
        assert row.target == f"{row.explanation} answer {row.answer}"
    assert all(row.explanation == "" for row in problems(tmp_path, Level.NONE).rows())


def test_an_address_names_what_is_computed_and_not_where(tmp_path: Path) -> None:
    here, there = problems(tmp_path / "here"), problems(tmp_path / "there")
    made = derived.mapped(here, tmp_path / "here", doubled, 1)
    assert made.address == derived.mapped(there, tmp_path / "there", doubled, 1).address
    others = [
        derived.mapped(here, tmp_path / "here", doubled, 2),
        derived.mapped(here, tmp_path / "here", partial(doubled, weight=0.5), 1),
        derived.mapped(problems(tmp_path / "here", Level.SHORT), tmp_path / "here", doubled, 1),
    ]
    assert len({made.address, *(other.address for other in others)}) == 4


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    CALLS.clear()
    data = problems(tmp_path)
    first, second = (derived.mapped(data, tmp_path, noted, 1) for _ in range(2))
    assert (first.is_reused, second.is_reused) == (False, True)
    assert len(CALLS) == len(data) == len(second)


def test_a_mapped_row_keeps_its_question_and_gets_what_the_function_says(tmp_path: Path) -> None:
    data = problems(tmp_path)
    rows = [*derived.mapped(data, tmp_path, partial(doubled, weight=0.25), 1).rows()]
    assert [row.question for row in rows[0::2]] == [row.question for row in data.rows()]
    assert {(row.prompt == "again " + row.question, row.weight, row.value("seen")) for row in rows[1::2]} == {
        (True, 0.25, 2)
    }


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("by", [None, "answer"])
def test_parts_hold_every_row_once_in_sizes_that_differ_by_one_at_most(
    tmp_path: Path, parts: int, by: str | None
) -> None:
    data = problems(tmp_path)
    made = derived.split(data, tmp_path, parts, by)
    sizes = [len(part) for part in made]
    assert max(sizes) - min(sizes) <= 1
    assert Counter(row.question for part in made for row in part.rows()) == Counter(row.question for row in data.rows())
    if by is not None:
        values = [row.answer for part in made for row in part.rows()]
        assert values == sorted(values)


def test_a_random_split_is_of_its_seed(tmp_path: Path) -> None:
    data = problems(tmp_path)
    first, again, other = (derived.split(data, tmp_path, 2, None, seed)[0] for seed in (0, 0, 1))
    assert first.address == again.address != other.address
    assert {row.question for row in first.rows()} != {row.question for row in other.rows()}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_a_balanced_selection_has_as_many_of_each_value(values: list[str]) -> None:
    rows = [Row(str(number), "", "", "", part=value) for number, value in enumerate(values)]
    kept = balanced(rows, "part")
    counts = Counter(row.part for row in kept)
    assert set(counts.values()) == {min(Counter(values).values())}
    assert [int(row.question) for row in kept] == sorted(int(row.question) for row in kept)


def test_a_selection_of_nothing_and_a_failing_function_say_so(tmp_path: Path) -> None:
    data = problems(tmp_path)
    with pytest.raises(TrialError, match=r"select .* leaves no row"):
        derived.selected(data, tmp_path, lambda row: False, 1)
    with pytest.raises(TrialError, match="ZeroDivisionError"):
        derived.mapped(data, tmp_path, lambda row: [row.with_(weight=1 / 0)], 2)
    with pytest.raises(TrialError, match=r'split by "nll": .* has no such column; columns: none'):
        derived.split(data, tmp_path, 2, "nll")


def test_a_mix_has_the_rows_of_all_parts_by_name(tmp_path: Path) -> None:
    first, second = derived.split(problems(tmp_path), tmp_path, 2, "answer")
    mixed = derived.mixed({"low": first, "high": second}, tmp_path)
    assert Counter(row.part for row in mixed.rows()) == {"low": len(first), "high": len(second)}


def test_further_columns_come_back_as_they_were(tmp_path: Path) -> None:
    data = problems(tmp_path, examples=9000)  # several shards
    derivation = Derivation(operation="score", version=1, settings={}, inputs=(data.address,))
    made = derived.with_columns(data, tmp_path, derivation, {"nll": [float(n) for n in range(9000)]})
    assert [row.value("nll") for row in made.rows()] == [float(n) for n in range(9000)]


def test_a_fillers_text_to_match_is_forgotten_when_its_target_changes(tmp_path: Path) -> None:
    row = next(problems(tmp_path, Level.FILLER).rows())
    assert row.value(MATCHED)
    assert row.with_(weight=2.0).value(MATCHED) == row.value(MATCHED)
    assert row.with_(target="another").value(MATCHED) is None


def test_functions_that_do_other_things_have_other_addresses_also_without_a_name(tmp_path: Path) -> None:
    def weighted(weight: float) -> RowFunction:
        return lambda row: [row.with_(weight=weight)]

    def named(weight: float) -> RowFunction:
        def made(row: Row, seen: float = weight) -> list[Row]:
            return [row.with_(weight=seen)]

        return made

    data = problems(tmp_path)
    functions = [
        lambda row: [row.with_(seen=1)],
        lambda row: [row.with_(seen=2)],
        *(make(weight) for make in (weighted, named) for weight in (0.5, 0.25)),
    ]
    made = [derived.mapped(data, tmp_path, function, 1) for function in functions]
    assert len({one.address for one in made}) == len(functions)
    assert [next(one.rows()).weight for one in made[2:]] == [0.5, 0.25, 0.5, 0.25]
    assert derived.mapped(data, tmp_path, weighted(0.5), 1).address == made[2].address
    unknown = object()
    with pytest.raises(TrialError, match="which has no address"):
        derived.mapped(data, tmp_path, lambda row: [row] if unknown else [], 1)


def test_an_empty_prompt_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    made = derived.mapped(problems(tmp_path), tmp_path, lambda row: [row.with_(prompt="")], 1)
    assert {row.prompt for row in made.rows()} == {""}
