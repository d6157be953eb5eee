"""The laws of every task, as tests over problems that it draws."""

import random
import re
from itertools import pairwise
from typing import ClassVar

from showhow.errors import UserError
from showhow.fingerprint import Json
from showhow.kinds import literal_kind
from showhow.seeds import rng_for
from showhow.tasks.base import Problem, Task
from showhow.tasks.explain import FILLER_SYMBOL, Level, explain, filler, shuffled, symbols
from showhow.tasks.grading import grade
from showhow.testing.elsewhere import elsewhere
from showhow.testing.method_contract import is_its_parameters

_REAL = (Level.SHORT, Level.MEDIUM, Level.LONG)


class TaskContract:
    """Inherit from it and set `subject` to the task to be tested (for several, in a fixture that pytest parametrizes).
    problems: how many are drawn for each law; unreadable: texts that are not questions of the task."""

    subject: Task
    problems: ClassVar[int] = 30
    unreadable: ClassVar[tuple[str, ...]] = ("", "no such thing", "3 @ 4")

    def test_it_has_a_kind_and_says_what_it_does(self) -> None:
        """A literal `kind`, and a docstring: what `showhow tasks` lists."""
        cls = type(self.subject)
        assert literal_kind(cls), f'{cls.__name__} needs a literal kind, such as kind: Literal["parity"] = "parity"'
        assert (cls.__dict__.get("__doc__") or "").strip(), f"{cls.__name__} needs a docstring that says what it does"

    def test_it_is_its_parameters(self) -> None:
        """It survives the trip through JSON, cannot be changed, and refuses parameters that it does not have."""
        is_its_parameters(self.subject)
        assert self.subject.changed({}) == self.subject

    def test_the_key_alone_determines_the_drawing(self) -> None:
        """All randomness comes from `rng`, and different keys give different problems."""
        problem = self.subject.draw(rng_for("contract", 0))
        state = random.getstate()
        random.seed(5)
        again = self.subject.draw(rng_for("contract", 0))
        random.setstate(state)
        assert again == problem, f"two draws from the same stream differ; draw from rng alone: {problem}, {again}"
        questions = {problem.question for problem in self._drawn()}
        assert len(questions) > 1, f'every stream gives the same question, "{problem.question}"'

    def test_it_is_the_same_in_another_process(self) -> None:
        """Nothing of it depends on the seed of Python's hashes, such as the order of a set."""
        assert elsewhere(_shown, self.subject) == _shown(self.subject), "another process draws other problems"

    def test_it_has_as_many_questions_as_it_states(self) -> None:
        """`distinct_questions` is no less than what is drawn."""
        stated = self.subject.distinct_questions
        drawn = len({self.subject.draw(rng_for("contract", number)).question for number in range(200)})
        assert stated is None or stated >= drawn, f"{drawn} different questions were drawn of {stated} stated"

    def test_solving_a_drawn_question_gives_the_drawn_problem_back(self) -> None:
        """`solve` and `draw` agree."""
        for problem in self._drawn():
            solved = self.subject.solve(problem.question)
            assert solved == problem, f'solving "{problem.question}" gives {solved}, drawn was {problem}'

    def test_every_problem_has_steps(self) -> None:
        """And so does the example question."""
        for problem in (*self._drawn(), self.subject.solve(self.subject.example_question)):
            assert problem.steps, f'"{problem.question}" has no steps to explain it'

    def test_each_level_shows_more_symbols_than_the_one_before(self) -> None:
        """Of each problem, and of each step."""
        for problem in self._drawn():
            texts = [explain(problem, level, self.subject.text_format) for level in (Level.NONE, *_REAL)]
            for several in (texts, *_wordings(problem)):
                counts = [len(symbols(text)) for text in several]
                assert counts == sorted(set(counts)), f"levels must grow in symbols, and have {counts}: {several}"

    def test_answers_and_numbers_stay_within_what_the_task_states(self) -> None:
        """`answers` are distinct and contain every answer; no number is larger than `largest_number`."""
        answers, largest = self.subject.answers, self.subject.largest_number
        assert len(set(answers)) == len(answers), "`answers` contains an answer twice"
        assert 0 < self.subject.chance <= 1
        for problem in self._drawn():
            assert problem.answer in answers, f'the answer "{problem.answer}" is not in `answers`'
            texts = [problem.question, *answers, *(text for texts in _wordings(problem) for text in texts)]
            found = max((int(number) for text in texts for number in re.findall(r"\d+", text)), default=0)
            assert found <= largest, f'"{problem.question}" has the number {found}, above largest_number = {largest}'

    def test_no_step_contains_what_separates_steps_or_announces_the_answer(self) -> None:
        """So that a reply can be split."""
        layout = self.subject.text_format
        for problem in self._drawn():
            for text in (text for texts in _wordings(problem) for text in texts):
                for mark in (layout.step_separator, layout.answer_prefix.strip()):
                    assert mark not in text, f'the step "{text}" contains "{mark}", which text_format takes'

    def test_a_target_graded_against_itself_is_right_and_has_as_many_steps(self) -> None:
        """And one with a wrong last step is not."""
        layout = self.subject.text_format
        for problem in self._drawn():
            for level in (Level.NONE, *_REAL):
                target = explain(problem, level, layout)
                found = grade(target, target, level, layout)
                assert found.answer_right, f'the target "{target}" is graded wrong'
                assert found.steps_right in (None, 1.0), f'the steps of "{target}" are graded {found.steps_right}'
            target = explain(problem, Level.LONG, layout)
            other = target.replace(_wordings(problem)[-1][-1], "nothing", 1)
            assert grade(other, target, Level.LONG, layout) != found, f'"{other}" is graded like "{target}"'

    def test_filler_has_as_many_symbols_as_the_explanation_and_the_same_answer(self) -> None:
        """The control `filler`."""
        layout = self.subject.text_format
        for problem in self._drawn():
            for level in _REAL:
                explained, filled = (show(problem, level, layout) for show in (explain, filler))
                assert len(symbols(filled)) == len(symbols(explained)), f'"{filled}" is not as long as "{explained}"'
                assert filled.lstrip(FILLER_SYMBOL) == layout.answer_prefix + problem.answer

    def test_shuffled_shows_the_steps_of_the_other_problem_and_its_own_answer(self) -> None:
        """The control `shuffled`."""
        layout, drawn = self.subject.text_format, self._drawn()
        for problem, other in pairwise(drawn):
            for level in _REAL:
                text, ending = shuffled(problem, other, level, layout), layout.answer_prefix + problem.answer
                theirs = explain(other, level, layout).removesuffix(layout.answer_prefix + other.answer)
                assert text == theirs + ending, f'"{text}" does not show the steps of "{other.question}"'

    def test_what_cannot_be_read_is_refused_with_the_position(self) -> None:
        """A UserError from `solve`; `showhow.tasks.base.unreadable` words it."""
        for question in self.unreadable:
            message = self._refusal(question)
            assert message is not None, f'"{question}" is no question, and solve raises no UserError'
            assert re.search(r"at position \d+", message), f'the refusal of "{question}" lacks a position: {message}'

    def _refusal(self, question: str) -> str | None:
        try:
            self.subject.solve(question)
        except UserError as error:
            return str(error)
        return None

    def _drawn(self) -> list[Problem]:
        return [self.subject.draw(rng_for("contract", number)) for number in range(self.problems)]


def _wordings(problem: Problem) -> list[list[str]]:
    """Return the short, the medium and the long wording of each step."""
    return [[word(*step) for word in problem.wording] for step in problem.steps]


def _shown(task: Task) -> Json:
    problems = [task.draw(rng_for("contract", number)) for number in range(8)]
    texts = [explain(problem, Level.LONG, task.text_format) for problem in problems]
    return [*(problem.question for problem in problems), *texts, *task.answers]
