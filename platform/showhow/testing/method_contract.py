"""The laws of every method, as tests on a bench in memory."""

import dataclasses
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

from showhow.errors import TrialError
from showhow.fingerprint import Json, fingerprint
from showhow.kinds import literal_kind
from showhow.methods.base import Method, Setup
from showhow.methods.bench import Unit
from showhow.methods.row import Row
from showhow.metrics import TEST
from showhow.tasks.base import Task
from showhow.tasks.explain import Level, symbols
from showhow.tasks.grading import read_answer
from showhow.tasks.modular_sum import ModularSum
from showhow.testing.bench import FakeBench
from showhow.testing.carry_out import carry_out
from showhow.testing.elsewhere import elsewhere
from showhow.testing.fakes import FakeData, FakeModel

_BATCHES = 40  # in a budget: enough for methods that spend a share of it
_BATCH_SIZE = 16


class MethodContract:
    """Inherit from it and set `subject` to the method to be tested (for several, in a fixture that pytest
    parametrizes), and `task` to the one that it runs on, where it needs another."""

    subject: Method
    task: Task = ModularSum(terms=4)
    units: ClassVar[tuple[Unit, ...]] = ("examples", "tokens", "flops")

    def test_it_has_a_kind_and_says_what_it_does(self) -> None:
        """A literal `kind`, a docstring, and its stages in words: what `showhow methods` lists."""
        cls = type(self.subject)
        assert literal_kind(cls), f'{cls.__name__} needs a literal kind, such as kind: Literal["half"] = "half"'
        assert (cls.__dict__.get("__doc__") or "").strip(), f"{cls.__name__} needs a docstring that says what it does"
        assert cls.stages, f"{cls.__name__}.stages must say what it does, a few words a stage"
        assert all(isinstance(text, str) and text for text in (*cls.stages, *cls.texts)), "stages and texts are texts"

    def test_it_is_its_parameters(self) -> None:
        """It survives the trip through JSON, cannot be changed, and refuses parameters that it does not have."""
        is_its_parameters(self.subject)

    def test_it_says_in_sentences_where_it_does_not_fit(self) -> None:
        """`unfit` returns texts, and allows at least one level."""
        for level in Level:
            for batching, batch_size in (("grouped", 16), ("packed", 16), ("grouped", 15)):
                found = [*self.subject.unfit(Setup(level, batching, batch_size, None))]
                assert all(isinstance(one, str) and one.strip() for one in found), f"unfit must give sentences: {found}"
        assert self._levels

    def test_it_runs_at_every_level_that_it_fits(self) -> None:
        """And returns a model of the bench."""
        for level in self._levels:
            assert isinstance(carry_out(self.subject, self._bench(level)), FakeModel)

    def test_it_is_pure(self) -> None:
        """On the same bench it makes the same calls, and the same rows at each address."""
        first, again = (_made(self.subject, self._bench(level)) for level in (self._levels[0],) * 2)
        assert first == again, f"two runs on the same bench differ: {_difference(first, again)}"

    def test_it_is_the_same_in_another_process(self) -> None:
        """Nothing of it depends on the seed of Python's hashes, such as the order of a set."""
        here, there = _traced(self.subject, self.task), elsewhere(_traced, self.subject, self.task)
        assert here == there, "in another process it makes other rows or calls; sort what comes from a set"

    def test_a_second_run_finds_the_shared_stages_there(self) -> None:
        """Every stage of a run is found again by a run of the same seed, which is charged the same."""
        first = self._bench(self._levels[0])
        second = self._bench(self._levels[0], store=first.store)
        for bench in (first, second):
            carry_out(self.subject, bench)
        assert all(stage.is_reused for stage in second.stages), f"made again: {second.stages}"
        assert second.budget.spent == first.budget.spent, "a run that finds its stages there must be charged for them"

    def test_it_spends_no_more_than_its_budget(self) -> None:
        """In every unit of the budget."""
        for unit in self.units:
            bench = self._bench(self._levels[0], unit=unit)
            carry_out(self.subject, bench)
            spent = bench.budget.spent.of(unit)
            assert spent <= bench.amount, f"it spent {spent:,.6g} {unit} of {bench.amount:,.6g}; see bench.budget.left"

    def test_it_prepares_data_without_a_model(self) -> None:
        """`prepare` makes data only: runs of all seeds share them."""
        bench = self._bench(self._levels[0]).preparing()
        try:
            prepared = self.subject.prepare(bench)
        except TrialError as error:
            raise AssertionError(f"prepare failed: {error}") from error
        assert prepared is None or isinstance(prepared, FakeData), "prepare must return data of the bench, or None"

    def test_a_question_is_asked_so_that_the_right_reply_is_graded_right(self) -> None:
        """`asked` keeps the question and its answer, and gives a reply that reads as `reads_as` says."""
        for level in self._levels:
            for row in self._bench(level).problems(TEST, examples=20).rows():
                self._check_asked(row, level)

    def test_it_announces_the_texts_that_it_puts_into_rows(self) -> None:
        """Tokenizers built for a study know only the tasks' texts and `texts`."""
        first = self._bench(self._levels[0], train_examples=40)
        known = {symbol for one in Level for row in first.problems(level=one).rows() for symbol in _symbols(row)}
        known |= {symbol for text in type(self.subject).texts for symbol in symbols(text)}
        for level in self._levels:
            bench = self._bench(level, train_examples=40, store=first.store).preparing()
            prepared = self.subject.prepare(bench)
            rows = [self.subject.asked(row) for row in bench.problems().rows()]
            rows += [*prepared.rows()] if isinstance(prepared, FakeData) else []
            unknown = {one for row in rows for one in _symbols(row) if not one.isdigit()} - known
            assert not unknown, f"rows contain {sorted(unknown)}, which no problem does; name them in `texts`"

    @property
    def _levels(self) -> list[Level]:
        return _levels(self.subject)

    def _bench(self, level: Level, unit: Unit = "examples", **changes: Any) -> FakeBench:
        return plentiful(self.task, level, unit, **changes)

    def _check_asked(self, row: Row, level: Level) -> None:
        asked, reads_as = self.subject.asked(row), self.subject.reads_as(level)
        assert isinstance(asked, Row), f"asked must return a Row, got {asked!r}"
        assert asked.question == row.question, f'asked changes the question "{row.question}" to "{asked.question}"'
        answer = read_answer(asked.target, reads_as, self.task.text_format)
        assert answer == row.answer, (
            f'from the right reply "{asked.target}" the answer is read as {answer!r} at the level "{reads_as}", and is '
            f"{row.answer!r}; see asked and reads_as"
        )


def is_its_parameters(subject: BaseModel) -> None:
    """Check that its parameters define a task or a method. Raises AssertionError."""
    cls = type(subject)
    assert cls.model_validate_json(subject.model_dump_json()) == subject, f"{subject!r} does not survive JSON"
    assert subject.model_config.get("frozen"), f"{cls.__name__} must stay frozen: what is addressed must not change"
    try:
        cls.model_validate({**subject.model_dump(), "no_such_parameter": 1})
    except ValidationError:
        return
    raise AssertionError(f'{cls.__name__} takes parameters that it does not have; leave extra="forbid" as it is')


def plentiful(task: Task, level: Level, unit: Unit, **changes: Any) -> FakeBench:
    """Return a bench whose budget, in `unit`, suffices for some batches of a task's problems."""
    bench = FakeBench(task=task, level=level, batch_size=_BATCH_SIZE, **changes)
    examples = _BATCHES * _BATCH_SIZE
    tokens = examples * max(bench.preparing().problems(level=Level.LONG).tokens) if unit != "examples" else 0
    amounts = {"examples": examples, "tokens": tokens, "flops": tokens * 6.0 * bench.parameters}
    return dataclasses.replace(bench, unit=unit, amount=amounts[unit])


def _made(method: Method, bench: FakeBench) -> dict[str, Json]:
    """Return all that a run made: its model, its calls, and a fingerprint of the rows at each address."""
    model = carry_out(method, bench)
    calls: list[Json] = [[stage.operation, stage.address, stage.spent.examples] for stage in bench.stages]
    rows: dict[str, Json] = {
        address: fingerprint([repr(row) for row in found.rows()]) if isinstance(found, FakeData) else repr(found)
        for address, (found, _) in bench.store.items()
    }
    return {"model": model.address, "calls": calls, "rows": rows}


def _traced(method: Method, task: Task) -> dict[str, Json]:
    return _made(method, plentiful(task, _levels(method)[0], "examples"))


def _levels(method: Method) -> list[Level]:
    found = [level for level in Level if not [*method.unfit(Setup(level, "grouped", _BATCH_SIZE, None))]]
    assert found, f"unfit refuses every level, with grouped batches of {_BATCH_SIZE}"
    return found


def _difference(first: dict[str, Json], again: dict[str, Json]) -> str:
    return ", ".join(name for name in first if first[name] != again[name])


def _symbols(row: Row) -> list[str]:
    return [*symbols(row.prompt), *symbols(row.target)]
