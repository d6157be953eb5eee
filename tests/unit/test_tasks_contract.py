"""What every task of the catalogue keeps: a new task is tested by its line in the catalogue."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from showhow.errors import UserError
from showhow.tasks import TASKS, AnyTask, task_named
from showhow.tasks.base import Task
from showhow.tasks.explain import count_symbols, symbols
from showhow.testing import TaskContract


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


class TestTasks(TaskContract):
    """The laws of every task (showhow/testing/task_contract.py), over the catalogue."""

    unreadable = (*TaskContract.unreadable, "[MAX", "3+")

    @pytest.fixture(autouse=True, params=VARIANTS)
    def _each(self, request: pytest.FixtureRequest) -> None:
        self.subject = request.param

    def test_it_is_the_same_in_another_process(self) -> None:
        if self.subject == type(self.subject)():  # half a second; one of each kind will do
            super().test_it_is_the_same_in_another_process()

    def test_it_survives_the_trip_through_a_study_file(self) -> None:
        adapter: TypeAdapter[Task] = TypeAdapter(AnyTask)
        assert adapter.validate_python(json.loads(self.subject.model_dump_json())) == self.subject
        assert task_named(self.subject.kind, self.subject.model_dump()) == self.subject

    def test_a_changed_task_is_checked_again(self) -> None:
        with pytest.raises(ValidationError):
            self.subject.changed({"modulus": 1})


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
