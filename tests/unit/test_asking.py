"""Laws of questions that a person asks a model, and of how its replies are read and graded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showhow.errors import UserError
from showhow.seeds import rng_for
from showhow.tasks import TASKS, task_named
from showhow.tasks.asking import Answer, Unasked, read_question, target_of
from showhow.tasks.base import Task
from showhow.tasks.explain import Level
from showhow.tasks.grading import grade

SUM = task_named("modular_sum", {"terms": 3})
DRAWING = [kind for kind in TASKS if kind != "imported"]


def drawn(task: Task, seed: int) -> tuple[str, str]:
    problem = task.draw(rng_for("asking", seed))
    return problem.question, problem.answer


@pytest.mark.parametrize("kind", DRAWING)
def test_a_drawn_question_is_read_as_it_is_and_worked_out(kind: str) -> None:
    task = task_named(kind, {})
    question, answer = drawn(task, 0)
    read = read_question(task, f"  {question} ")
    assert read.text == question
    assert read.problem is not None
    assert read.problem.answer == answer


def test_a_question_that_cannot_be_read_is_a_users_error_with_its_position() -> None:
    with pytest.raises(UserError, match="at position 3"):
        read_question(SUM, "1+x")


@pytest.mark.parametrize("kind", DRAWING)
@pytest.mark.parametrize("level", list(Level))
@given(seed=st.integers(0, 10**6))
def test_the_right_reply_is_right_in_every_step(kind: str, level: Level, seed: int) -> None:
    task = task_named(kind, {})
    problem = task.draw(rng_for("asking", seed))
    target = target_of(problem, level, task.text_format)
    answer = Answer.of(problem.question, target, target, level, task.text_format)
    assert answer.is_right
    assert answer.said() == f"{problem.answer}  right"
    assert all(written == expected for written, expected in answer.steps)
    assert len(answer.steps) == (len(problem.steps) if level.has_steps else 0)


@given(cut=st.integers(0, 12), noise=st.text("0123456789+= answer", max_size=12))
def test_the_grades_shown_are_those_of_an_evaluation(cut: int, noise: str) -> None:
    problem, layout = SUM.solve("3+9+4="), SUM.text_format
    target = target_of(problem, Level.LONG, layout)
    reply = target[:cut] + noise
    answer = Answer.of(problem.question, reply, target, Level.LONG, layout)
    grades = grade(reply, target, Level.LONG, layout)
    assert answer.is_right == grades.answer_right
    right = [written == expected for written, expected in answer.steps]
    assert sum(right) / len(right) == grades.steps_right


def test_each_step_is_shown_with_its_grade_and_the_right_one_beside_a_wrong_one() -> None:
    problem, layout = SUM.solve("3+9+4="), SUM.text_format
    target = target_of(problem, Level.LONG, layout)
    assert Answer.of("3+9+4=", "3+9=2 2+4=7 answer 7", target, Level.LONG, layout).explained() == [
        "3+9+4=",
        "  3+9=2     right",
        "  2+4=7     wrong: 2+4=6",
        "  answer 7  wrong: answer 6",
    ]
    assert Answer.of("3+9+4=", "3+9=2", target, Level.LONG, layout).explained()[2:] == [
        "             wrong: 2+4=6",
        "  no answer  wrong: answer 6",
    ]
    assert "  1+1=2     wrong: there is no such step" in (
        Answer.of("3+9+4=", f"3+9=2 2+4=6 1+1=2 {layout.answer_prefix}6", target, Level.LONG, layout).explained()
    )


@pytest.mark.parametrize(
    ("reply", "line"),
    [("3+9=2 2+4=6 answer 6", "6  right"), ("answer 7", "7  wrong: 6"), ("3+9=2", "no answer  wrong: 6")],
)
def test_an_answer_on_a_line_says_whether_it_is_right_and_what_would_be(reply: str, line: str) -> None:
    problem, layout = SUM.solve("3+9+4="), SUM.text_format
    target = target_of(problem, Level.LONG, layout)
    assert Answer.of("3+9+4=", reply, target, Level.LONG, layout).said() == line


def test_a_question_that_is_not_asked_has_a_line_too_and_in_json_the_reason() -> None:
    unasked = Unasked("1+x", "cannot read it")
    assert unasked.said() == "not asked"
    assert unasked.explained() == ["1+x", "  not asked"]
    assert unasked.as_json() == {"question": "1+x", "error": "cannot read it"}


def test_without_a_solution_nothing_is_graded() -> None:
    answer = Answer.of("What is it?", "first\nAnswer: 4", None, Level.LONG, SUM.text_format)
    assert answer.is_right is None
    assert answer.steps == ()
    assert answer.explained() == ["What is it?", "  first", "  Answer: 4"]
    assert answer.as_json()["right"] is None
