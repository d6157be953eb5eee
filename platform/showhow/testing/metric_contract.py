"""The laws of every custom metric, as tests on replies."""

import math
from typing import ClassVar

from showhow.methods.plain import Plain
from showhow.metrics import METRICS, TEST, Metric, Reply, find
from showhow.seeds import rng_for
from showhow.tasks.base import Task
from showhow.tasks.explain import Level
from showhow.tasks.grading import grade, read_answer
from showhow.tasks.modular_sum import ModularSum
from showhow.testing.bench import FakeBench
from showhow.testing.carry_out import carry_out


class MetricContract:
    """Inherit from it and set `subject` to the metric to be tested; lowest, highest: the bounds of its values;
    `task` to one whose replies it can measure, where it needs another."""

    subject: Metric
    task: Task = ModularSum(terms=4)
    lowest: ClassVar[float] = -math.inf
    highest: ClassVar[float] = math.inf

    def test_it_says_what_it_measures(self) -> None:
        """Name, unit, direction and meaning: what tables and pictures show."""
        cls = type(self.subject)
        for name in ("name", "unit", "meaning"):
            text = getattr(cls, name, None)
            assert isinstance(text, str), f"{cls.__name__}.{name} must be a text"
            assert text, f"{cls.__name__}.{name} is empty"
        assert cls.better in ("higher", "lower", None), f'better must be "higher", "lower" or None, not {cls.better!r}'
        assert cls.name.isidentifier(), f'the name "{cls.name}" must be letters, digits and _'
        assert (cls.__dict__.get("__doc__") or "").strip(), f"{cls.__name__} needs a docstring"

    def test_its_name_is_not_taken(self) -> None:
        """By another metric."""
        try:
            taken = find(self.subject.name)
        except KeyError:
            return
        assert METRICS.classes.get(taken.name) is type(self.subject), f'there is a metric "{taken.name}" already'

    def test_without_replies_there_is_none(self) -> None:
        """An empty split has no value."""
        found = self.subject.measure([])
        assert found is None, f"without replies it must be None, and is {found}"

    def test_it_is_a_number_within_its_range(self) -> None:
        """Or None, where it is not defined."""
        for level in Level:
            for share_right in (0.0, 0.5, 1.0):
                found = self.subject.measure(replies(self.task, level, share_right))
                assert found is None or math.isfinite(found), f"at {level} it is {found}, not a finite number"
                assert found is None or self.lowest <= found <= self.highest, (
                    f"at {level} it is {found}, outside {self.lowest} to {self.highest}"
                )

    def test_it_takes_replies_from_which_no_answer_can_be_read(self) -> None:
        """Models write some."""
        empty = [reply._replace(text="", answer=None, right=False) for reply in replies(self.task, Level.LONG, 0.0)]
        found = self.subject.measure(empty)
        assert found is None or math.isfinite(found), f"of empty replies it is {found}"

    def test_it_is_a_function_of_the_replies(self) -> None:
        """The same replies give the same value in any order."""
        some = replies(self.task, Level.LONG, 0.5)
        first, again = self.subject.measure(some), self.subject.measure(tuple(some))
        assert first == again, f"measured twice, the same replies give {first} and {again}"
        rng_for("order of replies").shuffle(some)
        other = self.subject.measure(some)
        is_same = first == other or (None not in (first, other) and math.isclose(first or 0.0, other or 0.0))
        assert is_same, f"in another order the same replies give {other}, not {first}"


def replies(task: Task, level: Level, share_right: float) -> list[Reply]:
    """Return replies to a task's questions at a level, a share of them right."""
    bench = FakeBench(task=task, level=level, share_right=share_right)
    model = carry_out(Plain(), bench)
    layout, found = task.text_format, []
    for row in bench.reply(model, bench.problems(TEST)).rows():
        text = str(row.columns["reply"])
        graded = grade(text, row.target, level, layout)
        answer = read_answer(text, level, layout)
        found.append(Reply(row.question, row.target, text, answer, row.answer, graded.answer_right, graded.steps_right))
    return found
