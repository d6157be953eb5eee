"""Every method of the catalogue keeps the laws of methods, and the suites find tasks, methods and metrics that break
theirs, saying how."""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import pytest

from showhow.errors import TrialError
from showhow.methods import METHODS
from showhow.methods.base import Method, Setup
from showhow.methods.bench import Bench, Data, Model
from showhow.methods.row import Row
from showhow.methods.sftmix import SftMix
from showhow.metrics import Metric, Reply
from showhow.tasks.base import Problem
from showhow.tasks.modular_sum import ModularSum
from showhow.testing import MethodContract, MetricContract, check
from showhow.testing.check import suite_of

TASK = ModularSum(terms=4)


class TestMethods(MethodContract):
    """The laws of every method (showhow/testing/method_contract.py), over the catalogue."""

    @pytest.fixture(autouse=True, params=[*METHODS.values(), partial(SftMix, halves="random")])
    def _each(self, request: pytest.FixtureRequest) -> None:
        self.subject = request.param()

    def test_it_is_the_same_in_another_process(self) -> None:
        if not self.subject.is_control:  # half a second; one of each kind will do
            super().test_it_is_the_same_in_another_process()


class Longest(Metric):
    """The longest reply."""

    name = "longest_reply"
    unit = "characters"
    better = None
    meaning = "characters of the longest reply"

    def measure(self, replies: Sequence[Reply]) -> float | None:
        return max((len(reply.text) for reply in replies), default=None)


class TestLongest(MetricContract):
    subject = Longest()
    lowest = 0.0


class Half(Method):
    """Train on some rows for half of the budget."""

    kind: Literal["half"] = "half"
    stages: ClassVar[tuple[str, ...]] = ("train for half of the budget",)

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        return bench.train(bench.start(), prepared or bench.problems(), examples=0.5)[-1]


class ByChance(Half):
    """Shuffles digits by the global generator."""

    def prepare(self, bench: Bench) -> Data:
        return bench.map(bench.problems(), _by_chance, version=1)


class ByHash(Half):
    """Looks at hashes of texts."""

    def prepare(self, bench: Bench) -> Data:
        return bench.map(bench.problems(), _by_hash, version=1)


class Early(Half):
    """Trains while it prepares."""

    def prepare(self, bench: Bench) -> Data:
        bench.train(bench.start(), bench.problems())
        return bench.problems()


class Greedy(Half):
    """Has replies written when nothing is left to spend."""

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        (model,) = bench.train(bench.start(), bench.problems())
        bench.reply(model, bench.problems())
        return model


class Renamed(Half):
    """Asks something else."""

    def asked(self, row: Row) -> Row:
        return row.with_(question="again: " + row.question)


class Quiet(Half):
    """Asks with a word that no task writes."""

    def asked(self, row: Row) -> Row:
        return row.with_(prompt="please " + row.prompt)


class Picky(Half):
    """Is never fit."""

    def unfit(self, setup: Setup) -> Iterator[str]:
        yield f"not at {setup.level}"


class Lost(Half):
    """Returns no model."""

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        return bench.train(bench.start(), bench.problems())  # type: ignore[return-value]


class Unsaid(Half):
    kind: str = "unsaid"  # type: ignore[assignment]


def _by_chance(row: Row) -> list[Row]:
    return [row.with_(target=f"{random.random()} {row.target}")]


def _by_hash(row: Row) -> list[Row]:
    return [row.with_(weight=1.0 + hash(row.question) % 7)]


class Wild(ModularSum):
    """Draws by the global generator."""

    def draw(self, rng: random.Random) -> Problem:
        return super().draw(random.Random(random.random()))


class Rude(ModularSum):
    """Refuses nothing."""

    def solve(self, question: str) -> Problem:
        return super().solve(question if "+" in question and question[-1] == "=" else "1+2+3+4=")


class Dense(ModularSum):
    """Has fewer questions than it draws, it says."""

    @property
    def distinct_questions(self) -> int:
        return 3


class Zero(Longest):
    """Is 0 without replies, and has a name that is taken."""

    name = "accuracy"

    def measure(self, replies: Sequence[Reply]) -> float:
        return float(sum(number for number, reply in enumerate(replies) if reply.right))


@pytest.mark.parametrize(
    ("broken", "law", "said"),
    [
        (ByChance(), "is_pure", "two runs on the same bench differ: rows"),
        (ByHash(), "is_the_same_in_another_process", "in another process"),
        (Early(), "prepares_data_without_a_model", "prepare makes data only"),
        (Greedy(), "spends_no_more_than_its_budget", "it spent [0-9,]+ tokens of"),
        (Renamed(), "asked_so_that_the_right_reply", "asked changes the question"),
        (Quiet(), "announces_the_texts", "please.*`texts`"),
        (Picky(), "says_in_sentences_where", "unfit refuses every level"),
        (Picky(), "is_pure", "unfit refuses every level"),
        (Lost(), "runs_at_every_level", "returned tuple"),
        (Unsaid(), "has_a_kind", "literal kind"),
        (Wild(terms=4), "key_alone", "draw from rng alone"),
        (Rude(terms=4), "what_cannot_be_read", "raises no UserError"),
        (Dense(terms=4), "as_many_questions", "of 3 stated"),
        (Zero(), "without_replies", "without replies it must be None"),
        (Zero(), "function_of_the_replies", "in another order"),
        (Zero(), "name_is_not_taken", '"accuracy" already'),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_breaks_a_law_is_told_which_and_how(broken: Any, law: str, said: str) -> None:
    suite = suite_of(broken)
    (test,) = (getattr(suite, name) for name in dir(suite) if name.startswith("test_") and law in name)
    with pytest.raises((AssertionError, TrialError), match=said):
        test()


def test_all_laws_are_checked_at_once() -> None:
    check(Longest())
    with pytest.raises(AssertionError):
        check(Unsaid())
