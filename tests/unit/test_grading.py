"""Replies are graded whole: the answer as it stands after its prefix, and each step in its place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.tasks.base import TextFormat
from showhow.tasks.explain import Level
from showhow.tasks.grading import Grade, grade, read_answer
from showhow.tasks.modular_sum import ModularSum

LINES = TextFormat(step_separator="\n", answer_prefix="Final answer: ")
WORDS = TextFormat(step_separator=" ", answer_prefix="answer ")
TARGET = "Min, 3\nMED, 5\nSUM, 13\nFinal answer: 13"


def graded(reply: str, level: Level = Level.SHORT) -> Grade:
    return grade(reply, TARGET, level, LINES)


def test_the_target_itself_is_right_in_answer_and_steps() -> None:
    assert graded(TARGET) == Grade(answer_right=True, steps_right=1.0, first_wrong_step=0)
    assert graded(TARGET).right_from_wrong_steps is False


@pytest.mark.parametrize("answer", ["3", "113", "13 3", "-13", "013", "13.", "", "1 3"])
def test_an_answer_that_only_resembles_the_target_is_wrong(answer: str) -> None:
    assert not graded(TARGET.replace("answer: 13", f"answer: {answer}")).answer_right


@pytest.mark.parametrize(("reply", "right"), [("13", True), (" 13\n", True), ("3", False), ("Final answer: 13", False)])
def test_at_level_none_the_whole_reply_is_the_answer(reply: str, right: bool) -> None:
    assert grade(reply, "13", Level.NONE, LINES) == Grade(right)


def test_a_missing_step_is_wrong_and_shifts_those_after_it() -> None:
    grade_ = graded("Min, 3\nSUM, 13\nFinal answer: 13")
    assert (grade_.answer_right, grade_.first_wrong_step) == (True, 2)
    assert grade_.steps_right == pytest.approx(1 / 3)


def test_a_missing_last_step_is_the_first_wrong_one() -> None:
    assert graded("Min, 3\nMED, 5\nFinal answer: 13").first_wrong_step == 3


def test_a_step_too_many_is_wrong() -> None:
    grade_ = graded(TARGET.replace("\nFinal", "\nSUM, 13\nFinal"))
    assert (grade_.answer_right, grade_.steps_right, grade_.first_wrong_step) == (True, 0.75, 4)


def test_the_first_wrong_step_counts_from_one() -> None:
    assert graded(TARGET.replace("Min, 3", "Min, 4")).first_wrong_step == 1
    assert graded(TARGET.replace("MED, 5", "MED, 6")).first_wrong_step == 2


def test_a_right_answer_from_a_wrong_step_is_told_apart() -> None:
    assert graded(TARGET.replace("MED, 5", "MED, 6")).right_from_wrong_steps is True
    assert graded(TARGET.replace("MED, 5", "MED, 6").replace(": 13", ": 1")).right_from_wrong_steps is False


def test_a_reply_cut_before_the_prefix_has_no_answer_and_keeps_its_right_steps() -> None:
    grade_ = graded("Min, 3\nMED, 5\n")
    assert (grade_.answer_right, grade_.first_wrong_step) == (False, 3)
    assert grade_.steps_right == pytest.approx(2 / 3)
    assert read_answer("Min, 3\nMED, 5\n", Level.SHORT, LINES) is None


def test_an_empty_reply_is_wrong_throughout() -> None:
    assert graded("") == Grade(answer_right=False, steps_right=0.0, first_wrong_step=1)


def test_an_answer_without_steps_is_right_from_wrong_steps() -> None:
    assert graded("Final answer: 13") == Grade(answer_right=True, steps_right=0.0, first_wrong_step=1)


@pytest.mark.parametrize("level", [Level.SHUFFLED, Level.FILLER])
def test_controls_are_graded_by_their_answer_alone(level: Level) -> None:
    grade_ = graded("....Final answer: 13", level)
    assert grade_ == Grade(answer_right=True)
    assert grade_.right_from_wrong_steps is None


def test_the_last_prefix_counts() -> None:
    assert read_answer("answer 4 answer 6", Level.SHORT, WORDS) == "6"


def test_a_sentence_is_one_step_however_many_words_it_has() -> None:
    task = ModularSum(style="sentence")
    target = "add 9 get 2\nadd 4 get 6\nanswer 6"
    grade_ = grade(target.replace("9 get 2", "8 get 1"), target, Level.MEDIUM, task.text_format)
    assert (grade_.steps_right, grade_.first_wrong_step) == (0.5, 1)


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="ab ,0123\n:answerFil", max_size=60))
def test_any_reply_gets_a_share_of_steps_between_zero_and_one(reply: str) -> None:
    grade_ = graded(reply)
    assert grade_.steps_right is not None
    assert 0 <= grade_.steps_right <= 1
    assert (grade_.first_wrong_step == 0) == (grade_.steps_right == 1)
