"""What every task of the catalogue keeps: a new task is tested by its line in the catalogue."""

import json
import random
import re
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from showhow.errors import UserError
from showhow.seeds import rng_for
from showhow.tasks import TASKS, AnyTask, task_named
from showhow.tasks.base import Problem, Task
from showhow.tasks.explain import FILLER_SYMBOL, Level, count_symbols, explain, filler, shuffled, symbols
from showhow.tasks.grading import grade

REAL = (Level.SHORT, Level.MEDIUM, Level.LONG)


def variants() -> list[tuple[str, dict[str, Any]]]:
    """Every kind, preset and style, and parameters far from the defaults."""
    named: list[tuple[str, dict[str, Any]]] = [
        (name, {}) for kind, task in TASKS.items() for name in [kind, *task.presets]
    ]
    styled = [
        (kind, {"style": style})
        for kind, task in TASKS.items()
        for style in get_args(task.model_fields["style"].annotation)
    ]
    return [
        *named,
        *styled,
        ("modular_sum", {"terms": 2, "below": 200, "modulus": 3}),
        ("modular_sum", {"terms": 3, "below": 2, "modulus": 97, "style": "sentence"}),
        ("listops", {"largest": 99, "modulus": 3}),
        ("listops", {"largest": 1, "modulus": 100, "max_arguments": 3, "style": "symbols"}),
    ]


VARIANTS = [pytest.param(task_named(name, changes), id=f"{name}{changes or ''}") for name, changes in variants()]
every_task = pytest.mark.parametrize("task", VARIANTS)
a_few = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**60)


def drawn(task: Task, seed: int) -> Problem:
    return task.draw(random.Random(seed))


def wordings(problem: Problem) -> list[list[str]]:
    """Of each step the short, the medium and the long wording."""
    return [[word(*step) for word in problem.wording] for step in problem.steps]


@every_task
@a_few
@given(seed=seeds)
def test_solving_a_drawn_question_gives_the_drawn_problem_back(task: Task, seed: int) -> None:
    problem = drawn(task, seed)
    assert task.solve(problem.question) == problem


@every_task
@a_few
@given(seed=seeds)
def test_each_level_shows_more_symbols_than_the_one_before(task: Task, seed: int) -> None:
    problem = drawn(task, seed)
    levels = (Level.NONE, *REAL)
    counts = [len(symbols(explain(problem, level, task.text_format))) for level in levels]
    assert counts == sorted(set(counts))
    for texts in wordings(problem):
        by_step = [len(symbols(text)) for text in texts]
        assert by_step == sorted(set(by_step))


@every_task
def test_the_key_alone_determines_the_drawing(task: Task) -> None:
    problem = task.draw(rng_for("contract", 1))
    random.seed(5)
    assert task.draw(rng_for("contract", 1)) == problem
    assert len({task.draw(rng_for("contract", index)).question for index in range(8)}) > 1


@every_task
@a_few
@given(seed=seeds)
def test_answers_and_numbers_stay_within_what_the_task_states(task: Task, seed: int) -> None:
    problem = drawn(task, seed)
    assert problem.answer in task.answers
    assert len(set(task.answers)) == len(task.answers)
    texts = [problem.question, *(text for texts in wordings(problem) for text in texts)]
    assert max(int(number) for text in texts for number in re.findall(r"\d+", text)) <= task.largest_number
    assert max(map(int, task.answers)) <= task.largest_number


@every_task
@a_few
@given(seed=seeds)
def test_no_step_contains_what_separates_steps_or_announces_the_answer(task: Task, seed: int) -> None:
    layout = task.text_format
    for text in (text for texts in wordings(drawn(task, seed)) for text in texts):
        assert layout.step_separator not in text
        assert layout.answer_prefix.strip() not in text


@every_task
@a_few
@given(seed=seeds)
def test_a_target_graded_against_itself_is_right_and_has_as_many_steps(task: Task, seed: int) -> None:
    problem = drawn(task, seed)
    for level in (Level.NONE, *REAL):
        target = explain(problem, level, task.text_format)
        grade_ = grade(target, target, level, task.text_format)
        assert grade_.answer_right
        assert grade_.steps_right in (None, 1.0)
    wrong_end = explain(problem, Level.LONG, task.text_format).replace(wordings(problem)[-1][-1], "nothing", 1)
    assert grade(wrong_end, explain(problem, Level.LONG, task.text_format), Level.LONG, task.text_format) != grade_


@every_task
@a_few
@given(seed=seeds, level=st.sampled_from(REAL))
def test_filler_has_as_many_symbols_as_the_explanation_and_the_same_answer(task: Task, seed: int, level: Level) -> None:
    problem = drawn(task, seed)
    explained, filled = (show(problem, level, task.text_format) for show in (explain, filler))
    assert len(symbols(filled)) == len(symbols(explained))
    assert filled.lstrip(FILLER_SYMBOL) == task.text_format.answer_prefix + problem.answer


@every_task
@a_few
@given(seed=seeds, level=st.sampled_from(REAL))
def test_shuffled_shows_the_steps_of_the_other_problem_and_its_own_answer(task: Task, seed: int, level: Level) -> None:
    problem, other = drawn(task, seed), drawn(task, seed + 1)
    text = shuffled(problem, other, level, task.text_format)
    ending = task.text_format.answer_prefix + problem.answer
    assert text.endswith(ending)
    theirs = explain(other, level, task.text_format).removesuffix(task.text_format.answer_prefix + other.answer)
    assert text.removesuffix(ending) == theirs


@every_task
def test_the_example_question_can_be_solved(task: Task) -> None:
    assert task.solve(task.example_question).steps


@every_task
@pytest.mark.parametrize("question", ["", "no such thing", "3 @ 4", "[MAX", "3+"])
def test_what_cannot_be_read_is_refused_with_the_position(task: Task, question: str) -> None:
    with pytest.raises(UserError, match=r"at position \d+"):
        task.solve(question)


@every_task
def test_a_task_survives_the_trip_through_json(task: Task) -> None:
    adapter: TypeAdapter[Task] = TypeAdapter(AnyTask)
    assert adapter.validate_python(json.loads(task.model_dump_json())) == task
    assert task_named(task.model_dump()["kind"], task.model_dump()) == task


@every_task
def test_a_changed_task_is_checked_anew(task: Task) -> None:
    assert task.changed({}) == task
    with pytest.raises(ValidationError):
        task.changed({"modulus": 1})


@given(st.text(alphabet="aé_9\u00b2\u0663 \n\t\u00a0\u2003.,+[(-", max_size=60))
@settings(deadline=None, max_examples=100)
def test_the_symbols_of_any_text_joined_are_the_text(text: str) -> None:
    assert "".join(symbols(text)) == text


@given(st.lists(st.text(alphabet="aé_9\u00b2\u0663 \n\t\u00a0\u2003.,+[(-", max_size=60), max_size=4))
@settings(deadline=None, max_examples=200)
def test_symbols_are_counted_as_they_are_split(texts: list[str]) -> None:
    assert count_symbols(texts) == sum(len(symbols(text)) for text in texts)


def test_every_character_counts_as_it_is_split() -> None:
    for page in range(0, 0x30000, 0x100):
        texts = [f"1{character} a{character}{character} " for character in map(chr, range(page, page + 0x100))]
        assert count_symbols(texts) == sum(len(symbols(text)) for text in texts)


def test_every_character_is_in_some_symbol() -> None:
    every = "".join(map(chr, range(0x30000)))
    assert "".join(symbols(every)) == every


def test_a_preset_is_filled_in_and_what_stands_beside_it_wins() -> None:
    adapter: TypeAdapter[Task] = TypeAdapter(AnyTask)
    task = adapter.validate_python({"kind": "listops", "preset": "listops-30", "largest": 19})
    assert task == task_named("listops-30", {"largest": 19})
    assert (task.model_dump()["largest"], task.model_dump()["min_length"]) == (19, 50)


def test_a_task_changed_to_a_preset_is_that_preset() -> None:
    assert task_named("listops", {}).changed({"preset": "listops-30"}) == task_named("listops-30", {})
    longer = task_named("listops-30", {}).changed({"preset": "listops-10", "max_length": 60})
    assert longer == task_named("listops", {"max_length": 60})


@pytest.mark.parametrize("preset", ["listops-31", 3, ["listops-30"]])
def test_an_unknown_preset_is_refused_with_those_there_are(preset: object) -> None:
    with pytest.raises(UserError, match=r"listops-10.*listops-30"):
        task_named("listops", {"preset": preset})
    with pytest.raises(ValidationError, match="listops-30"):
        task_named("listops", {}).changed({"preset": preset})


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("listop", {}, ['"listop"', "modular_sum, listops, listops-10, listops-30", 'Did you mean "listops"?']),
        ("listops-3", {}, ['Did you mean "listops-30"?']),
        ("listops", {"larget": 3}, ['no parameter "larget"', "largest, modulus", 'Did you mean "largest"?']),
        ("listops", {"largest": 0}, ["listops: largest = 0", "greater than or equal to 1"]),
        ("modular_sum", {"terms": "many"}, ["modular_sum: terms = 'many'", "valid integer"]),
        ("modular_sum", {"style": "prose"}, ["style = 'prose'", "'equation', 'operand' or 'sentence'"]),
        ("modular_sum", {"preset": "x"}, ['preset = "x"', "none"]),
        ("modular_sum", {"terms": 1, "below": 1}, ["terms = 1", "below = 1"]),
        ("listops", {"kind": "modular_sum"}, ["kind = 'modular_sum'", "'listops'"]),
    ],
)
def test_a_wrong_name_or_parameter_is_answered_with_what_is_allowed(
    name: str, changes: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(UserError) as refusal:
        task_named(name, changes)
    for words in said:
        assert words in str(refusal.value)
    assert "pydantic" not in str(refusal.value)
