"""What examples keep: splits share no question, levels share their problems, and the spec alone decides every row."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.datasets.examples import BLOCK_EXAMPLES, Example, draw_block, question_hash, to_example
from showhow.metrics import TEST, VALIDATION
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks import task_named
from showhow.tasks.explain import Level, explain, symbols

a_few = settings(deadline=None, max_examples=20)
levels = st.sampled_from(Level)
seeds = st.integers(0, 2**40)
sizes = st.integers(1, 150)
REAL = (Level.SHORT, Level.MEDIUM, Level.LONG)


def spec(level: Level = Level.LONG, split: str = TRAIN, seed: int = 0, **changes: Any) -> DatasetSpec:
    task = task_named("modular_sum", {"terms": 3} | changes)
    return DatasetSpec(task=task, level=level, split=split, examples=1, seed=seed, control_length=Level.LONG)


def rows(of: DatasetSpec, examples: int, block: int = 0) -> list[Example]:
    return draw_block(of, block, examples)[0]


def questions(of: DatasetSpec, examples: int, block: int = 0) -> set[str]:
    return {row.question for row in rows(of, examples, block)}


@a_few
@given(first=st.tuples(levels, seeds, sizes), second=st.tuples(levels, seeds, sizes))
def test_no_question_is_in_two_splits_whatever_the_seed_the_level_and_the_size(
    first: tuple[Level, int, int], second: tuple[Level, int, int]
) -> None:
    splits = [(TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST), (TRAIN, "longer")]
    for one, other in splits:
        mine = questions(spec(first[0], one, first[1]), first[2])
        theirs = questions(spec(second[0], other, second[1]), second[2])
        assert not mine & theirs


def test_further_evaluation_splits_share_no_question_with_training_even_on_the_same_task() -> None:
    assert not questions(spec(split="same_again"), 500) & questions(spec(seed=3), 2000)


def test_the_splits_own_80_10_and_10_percent_of_the_questions() -> None:
    every = [question_hash(f"{a}+{b}+{c}=") % 100 for a in range(20) for b in range(20) for c in range(20)]
    shares = [sum(bucket in spec(split=split).buckets for bucket in every) for split in (TRAIN, VALIDATION, TEST)]
    assert sum(shares) == len(every)
    for share, expected in zip(shares, (0.8, 0.1, 0.1), strict=True):
        assert share / len(every) == pytest.approx(expected, abs=0.02)


@a_few
@given(seed=seeds, split=st.sampled_from([TRAIN, VALIDATION, TEST, "longer"]))
def test_all_levels_explain_the_same_problems(seed: int, split: str) -> None:
    asked = {level: [(row.question, row.answer) for row in rows(spec(level, split, seed), 20)] for level in Level}
    assert all(pairs == asked[Level.NONE] for pairs in asked.values())


@a_few
@given(seed=seeds, length=st.sampled_from(REAL))
def test_filler_names_the_explanation_whose_length_it_has(seed: int, length: Level) -> None:
    of = spec(Level.FILLER, seed=seed).model_copy(update={"control_length": length})
    explained = rows(spec(length, seed=seed), 20)
    for row, real in zip(rows(of, 20), explained, strict=True):
        assert row.matched == real.target
        assert len(symbols(row.target)) == len(symbols(real.target))
        assert set(row.target.removesuffix("answer " + row.answer)) <= {"."}
    assert all(row.matched is None for row in explained)


@a_few
@given(seed=seeds)
def test_shuffled_never_shows_the_steps_of_its_own_question(seed: int) -> None:
    of = spec(Level.SHUFFLED, seed=seed, terms=2, below=4, modulus=100)  # the steps tell all 16 questions apart
    for row in rows(of, 40):
        steps, _, answer = row.target.rpartition(" answer ")
        assert answer == row.answer
        assert steps != row.question + row.answer


def test_a_control_of_another_problem_cannot_be_made_without_one() -> None:
    task = task_named("modular_sum", {})
    with pytest.raises(ValueError, match="another problem"):
        to_example(task, Level.SHUFFLED, Level.LONG, task.solve("1+2="))


@a_few
@given(seed=seeds, size=sizes, block=st.integers(0, 10**6))
def test_the_key_alone_decides_a_block_and_a_longer_one_begins_with_it(seed: int, size: int, block: int) -> None:
    of = spec(Level.SHUFFLED, seed=seed)
    rows(of, 3, block + 1)
    assert rows(of, size, block) == rows(of, size, block) == rows(of, size + 7, block)[:size]


def test_blocks_seeds_and_splits_are_streams_of_their_own() -> None:
    of = spec(terms=8)
    streams = [questions(of, 400), questions(of, 400, block=1), questions(spec(seed=1, terms=8), 400)]
    assert all(len(one & other) < 5 for one in streams for other in streams if one is not other)
    assert len(questions(of, BLOCK_EXAMPLES)) > 0.99 * BLOCK_EXAMPLES


def test_a_split_without_any_question_ends_the_drawing() -> None:
    every = {f"{a}+{b}=" for a in range(2) for b in range(2)}
    for split in (TRAIN, VALIDATION, TEST):
        of = spec(split=split, terms=2, below=2)
        there = {question for question in every if question_hash(question) % 100 in of.buckets}
        assert questions(of, 200) == there
        assert len(rows(of, 200)) == (200 if there else 0)


def test_a_row_carries_the_explanation_and_the_answer_of_its_question() -> None:
    task = task_named("listops", {"style": "symbols"})
    problem = task.solve("[MAX 4 [MED 2 7 ] ]")
    row = to_example(task, Level.LONG, Level.SHORT, problem)
    assert row == Example(problem.question, explain(problem, Level.LONG, task.text_format), "4", None)
