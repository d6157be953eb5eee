"""A question that a person puts to a model, and the model's reply as an answer with graded steps. Pure."""

from dataclasses import dataclass
from typing import NamedTuple

from showhow.errors import UserError
from showhow.fingerprint import Json
from showhow.seeds import rng_for
from showhow.tasks.base import Problem, Task, TextFormat
from showhow.tasks.explain import Level, explain
from showhow.tasks.grading import paired_steps, read_answer

NO_ANSWER, NOT_ASKED = "no answer", "not asked"


class Question(NamedTuple):
    """A question as the model reads it, with its solution; `problem` is None where the solution is not known."""

    text: str
    problem: Problem | None


def read_question(task: Task, typed: str) -> Question:
    """Return a question that a person typed, in the task's own form. For a listed task any text is a question, and the
    solutions of listed questions are known. Raises UserError with the position of what the task cannot read."""
    try:
        listed = task.listed
    except UserError:  # its file has been moved
        return Question(typed, None)
    if listed is not None:
        return Question(typed, next((problem for problem in listed if problem.question == typed), None))
    problem = task.solve(typed)
    return Question(problem.question, problem)


def example_of(task: Task) -> str | None:
    """Return a question of the task; None where its file has been moved."""
    try:
        return task.draw(rng_for("asking", task.identity)).question
    except UserError:
        return None


def target_of(problem: Problem, level: Level, layout: TextFormat) -> str:
    """Return the right reply; at a control, which explains nothing, the answer alone."""
    return layout.answer_prefix + problem.answer if level.is_control else explain(problem, level, layout)


@dataclass(frozen=True)
class Answer:
    """What a model replied.

    answer: read from the reply, None where it has none. expected: the right answer, None where it is not known. steps:
    pairs of a written and the right step, None for a missing or an extra one; empty where the level has no steps or the
    solution is not known."""

    question: str
    reply: str
    answer: str | None
    expected: str | None
    steps: tuple[tuple[str | None, str | None], ...]

    @classmethod
    def of(cls, question: str, reply: str, target: str | None, level: Level, layout: TextFormat) -> "Answer":
        """Read a reply. target: the right reply, None where it is not known."""
        graded = target is not None and level.has_steps
        return cls(
            question=question,
            reply=reply,
            answer=read_answer(reply, level, layout),
            expected=None if target is None else read_answer(target, level, layout),
            steps=tuple(paired_steps(reply, target, layout)) if graded and target is not None else (),
        )

    @property
    def is_right(self) -> bool | None:
        """Whether the answer is right; None where the right one is not known."""
        return None if self.expected is None else self.answer == self.expected

    def said(self) -> str:
        """Return the answer as a line for people, with its grade where the right one is known."""
        answer = self.answer or NO_ANSWER
        return answer if self.expected is None else f"{answer}  {_grade(self.answer, self.expected)}"

    def explained(self) -> list[str]:
        """Return question, steps and answer as lines for people, each with its grade; without grades, the reply."""
        if self.expected is None:
            return [self.question, *(f"  {line}" for line in self.reply.splitlines())]
        lines = [(written or "", expected) for written, expected in self.steps]
        lines.append((f"answer {self.answer}" if self.answer else NO_ANSWER, f"answer {self.expected}"))
        width = max(len(written) for written, _ in lines)
        return [self.question, *(f"  {written:<{width}}  {_grade(written, right)}" for written, right in lines)]

    def as_json(self) -> dict[str, Json]:
        """Return everything as JSON."""
        return {
            "question": self.question,
            "reply": self.reply,
            "answer": self.answer,
            "expected": self.expected,
            "right": self.is_right,
            "steps": [
                {"written": written, "expected": expected, "right": written == expected}
                for written, expected in self.steps
            ],
        }


@dataclass(frozen=True)
class Unasked:
    """A question that was not put to a model, and why."""

    question: str
    why: str

    def said(self) -> str:
        """Return a line for people in place of an answer."""
        return NOT_ASKED

    def explained(self) -> list[str]:
        """Return the question and that line."""
        return [self.question, f"  {NOT_ASKED}"]

    def as_json(self) -> dict[str, Json]:
        """Return everything as JSON."""
        return {"question": self.question, "error": self.why}


def _grade(written: str | None, expected: str | None) -> str:
    if written == expected:
        return "right"
    return "wrong: there is no such step" if expected is None else f"wrong: {expected}"
