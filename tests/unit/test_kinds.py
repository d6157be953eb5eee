"""Laws of the catalogues: a class is found by its kind wherever it comes from, and whatever is wrong with one is said
with its name, when it is registered or asked for and not before."""

import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field
from studies import changed, complaint, load

import showhow
from showhow.cli.main import DONE, main
from showhow.errors import UserError
from showhow.kinds import Catalogue, register, registered
from showhow.methods import METHOD_KINDS
from showhow.methods.base import Method, Setup
from showhow.methods.bench import Bench, Data, Model
from showhow.metrics import METRICS, Metric, Reply, find, on_split
from showhow.study.study import Study
from showhow.tasks import TASK_KINDS, task_named
from showhow.tasks.base import Problem, Task, TextFormat, Wording

SECTION = 'kind = "modular_sum"\nterms = 6'
NO_SPLIT = ("eval_splits.longer = { terms = 8 }", "")
Bits = Annotated[int, Field(ge=1, le=60)]


class Parity(Task):
    """`1 0 1` -> 0: whether ones are odd in number. Steps: the parity so far."""

    kind: Literal["parity"] = "parity"
    bits: Bits = 20
    weights: tuple[int, ...] = (1,)

    example_question: ClassVar[str] = "1 0 1"

    @property
    def text_format(self) -> TextFormat:
        return TextFormat(" ", "answer ")

    def draw(self, rng: random.Random) -> Problem:
        return self.solve(" ".join(rng.choice("01") for _ in range(self.bits)))

    def solve(self, question: str) -> Problem:
        bits = [int(bit) for bit in question.split()]
        steps = tuple((sum(bits[: end + 1]) % 2,) for end in range(len(bits)))
        return Problem(question, steps, Wording("{}".format, "{}".format, "{}".format), str(sum(bits) % 2))

    @property
    def answers(self) -> tuple[str, ...]:
        return ("0", "1")

    @property
    def largest_number(self) -> int:
        return 1

    @property
    def distinct_questions(self) -> int:
        return int(2**self.bits)


class Half(Method):
    """Train on half of the budget, for no reason."""

    kind: Literal["half"] = "half"
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    stages: ClassVar[tuple[str, ...]] = ("train on half",)
    source: ClassVar[str] = "nowhere"

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        return bench.train(bench.start(), bench.problems())[-1]


class Length(Metric):
    """How long replies are."""

    name = "reply_length"
    unit = "characters"
    better = None
    meaning = "characters of a reply, mean over replies"

    def measure(self, replies: Sequence[Reply]) -> float | None:
        return sum(len(reply.text) for reply in replies) / len(replies) if replies else None


@pytest.fixture
def ours() -> Iterator[None]:
    """The three classes, registered as long as a test lasts."""
    catalogues: tuple[Catalogue[object], ...] = (TASK_KINDS, METHOD_KINDS, METRICS)  # type: ignore[assignment]
    for cls in (Parity, Half, Length):
        register(cls)
    yield
    for catalogue in catalogues:
        catalogue._registered.clear()


@pytest.mark.usefixtures("ours")
def test_a_registered_class_is_used_by_its_kind_in_a_file_and_in_python(tmp_path: Path) -> None:
    text = changed((SECTION, 'kind = "parity"\nbits = 14\nweights = [1, 2]'), NO_SPLIT)
    text += '\n[method]\nkind = "half"\nshare = 0.25\n'
    study = load(tmp_path, text.replace("every_examples = 160", 'every_examples = 160\nmetrics = ["reply_length"]'))
    assert study.task == Parity(bits=14, weights=(1, 2))
    assert study.trials[0].method == Half(share=0.25)
    assert study.definition()["task"] == {"kind": "parity", "bits": 14, "weights": [1, 2]}
    assert study.evaluation.metrics == ("reply_length",)
    again = study.with_changes({"task": Parity(bits=13), "search.task.bits": None})
    assert again.trials[0].task == Parity(bits=13)
    assert Study.model_validate_json(json.dumps(study.definition()), strict=True) == study


@pytest.mark.usefixtures("ours")
def test_faults_in_a_registered_class_have_line_allowed_values_and_nearest_name(tmp_path: Path) -> None:
    text = changed((SECTION, 'kind = "parity"\nbits = 61'), NO_SPLIT)
    assert complaint(tmp_path, text) == "study.toml:7: task.bits: got 61, must be at most 60"
    text = changed((SECTION, 'kind = "parity"\nbitz = 6'), NO_SPLIT)
    assert 'study.toml:7: task.bitz: there is no such setting. Did you mean "bits"?' in complaint(tmp_path, text)
    answer = complaint(tmp_path, changed((SECTION, 'kind = "pairty"'), NO_SPLIT))
    assert answer.startswith(
        'study.toml:6: task.kind: got "pairty". Did you mean "parity"? Allowed: modular_sum, listops'
    )
    axis = changed(
        (SECTION, 'kind = "parity"'), NO_SPLIT, ("samples = 2", "samples = 2\ntask.bits = { grid = [10, 99] }")
    )
    assert "search.task.bits: got 99, must be at most 60" in complaint(tmp_path, axis)


@pytest.mark.usefixtures("ours")
def test_the_same_class_may_be_registered_again_and_another_may_not_take_its_kind() -> None:
    assert register(Parity) is Parity
    other = type("Parity", (Parity,), {"__doc__": "x", "__module__": Parity.__module__, "__qualname__": "Parity"})
    register(other)  # as when the cell of a notebook is run again
    assert TASK_KINDS.find("parity") is other
    thief = type("Thief", (Parity,), {"__doc__": "x", "__module__": Parity.__module__})
    with pytest.raises(UserError, match=r'Thief: the kind "parity" is already that of test_kinds\.Parity'):
        register(thief)
    assert set(registered()) == {other, Half, Length}


class NoKind(Parity):
    """Says no kind."""

    kind: str = "some"  # type: ignore[assignment]


class BuiltIn(Parity):
    """Takes a name."""

    kind: Literal["listops"] = "listops"  # type: ignore[assignment]


class Bare(Task):
    kind: Literal["bare"] = "bare"


class NoRun(Method):
    """Does nothing."""

    kind: Literal["no_run"] = "no_run"


class Accuracy(Length):
    """Takes a name."""

    name = "accuracy"


class OtherRun(Method):
    """Takes nothing."""

    kind: Literal["other_run"] = "other_run"

    def run(self) -> Model:  # type: ignore[override]
        raise NotImplementedError


class NoProperty(Parity):
    """Gives its answers as a function."""

    kind: Literal["no_property"] = "no_property"  # type: ignore[assignment]

    def answers(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("0", "1")


class Upwards(Length):
    """Says what it does not know, and needs to be told more."""

    name = "upwards"
    unit = 3  # type: ignore[assignment]
    better = "up"  # type: ignore[assignment]

    def __init__(self, most: int) -> None:
        self.most = most


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (NoKind, ["NoKind must have a name", 'kind: Literal["parity"] = "parity"']),
        (BuiltIn, ['BuiltIn has the kind "listops", which is built in']),
        (Bare, ["Bare must define text_format, draw, solve", "example_question", "must have a docstring"]),
        (NoRun, ["NoRun must define run (see showhow.Method)"]),
        (OtherRun, ["OtherRun must define run as a function of (self, bench, prepared)"]),
        (NoProperty, ["NoProperty must define answers as a property (@property)"]),
        (Upwards, ["better = 'up'", '"higher", "lower" or None', "its unit as text", "constructor without arguments"]),
        (Accuracy, ["Accuracy must have a name", "other than the built-in metrics"]),
        (int, ["cannot be registered; derive a class from one of", "showhow.Metric", "showhow.Task"]),
        ("parity", ["'parity' cannot be registered"]),
    ],
)
def test_a_class_that_breaks_its_contract_is_refused_at_once(cls: type, said: list[str]) -> None:
    with pytest.raises(UserError) as refusal:
        showhow.register(cls)
    assert [part for part in said if part not in str(refusal.value)] == []
    assert cls not in registered()


@pytest.mark.usefixtures("ours")
def test_a_registered_metric_is_found_by_its_logged_name_and_unknown_ones_are_answered_with_the_nearest(
    tmp_path: Path,
) -> None:
    assert find(on_split("test", "reply_length")).unit == "characters"
    every = ("every_examples = 160", 'every_examples = 160\nmetrics = ["reply_lenght"]')
    answer = complaint(tmp_path, changed(every))
    assert answer.startswith('study.toml:31: evaluation.metrics: got "reply_lenght". Did you mean "reply_length"?')
    reply = Reply("1?", "1", "10", "10", "1", False, None)
    assert Length().measure([reply, reply]) == 2
    with pytest.raises(KeyError):
        find("test/nothing")


def test_a_study_that_names_a_metric_where_there_are_none_is_told_so(tmp_path: Path) -> None:
    every = ("every_examples = 160", 'every_examples = 160\nmetrics = ["length"]')
    assert 'evaluation.metrics: got "length". There are none; metrics of your own' in complaint(
        tmp_path, changed(every)
    )


BROKEN = [
    ({"draw": lambda task, rng: 1 // 0}, 'a problem of the task "odd" cannot be made: ZeroDivisionError'),
    ({"draw": lambda task, rng: "1?"}, "draw of the task \"odd\" must return a Problem, got '1?'"),
    ({"text_format": property(lambda task: " ")}, 'text_format of the task "odd" must be a TextFormat'),
    ({"answers": property(lambda task: ())}, 'answers of the task "odd" must not be empty'),
    ({"largest_number": property(lambda task: "9")}, "must be a whole number, got '9'"),
    ({"distinct_questions": property(lambda task: "many")}, "must be a whole number or None"),
]


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(("members", "said"), BROKEN)
def test_a_task_of_which_no_problem_can_be_made_is_refused_when_a_study_is_checked(
    tmp_path: Path, members: dict[str, object], said: str
) -> None:
    kind = {"__annotations__": {"kind": Literal["odd"]}, "kind": "odd"}
    register(type("Odd", (Parity,), {"__doc__": "Odd.", "__module__": __name__, **kind, **members}))
    answer = complaint(tmp_path, changed((SECTION, 'kind = "odd"'), NO_SPLIT))
    assert answer.startswith("study.toml:5: task: ")
    assert said in answer


class Unsure(Half):
    """Fails when it is asked what it cannot do."""

    kind: Literal["unsure"] = "unsure"  # type: ignore[assignment]

    def unfit(self, setup: Setup) -> Iterator[str]:
        raise LookupError("nowhere")


@pytest.mark.usefixtures("ours")
def test_a_method_that_fails_when_it_is_asked_is_named(tmp_path: Path) -> None:
    register(Unsure)
    answer = complaint(tmp_path, changed() + '\n[method]\nkind = "unsure"\n')
    assert 'the method "unsure" fails in unfit: LookupError: nowhere' in answer


PACKAGE = '''
import json
import random
from typing import Literal
from test_kinds import Parity
class Coins(Parity):
    """Coins that fell."""
    kind: Literal["coins"] = "coins"
class NoTask:
    """Is none."""
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed package, of which some entry points are right."""
    name = f"coins_{abs(hash(str(tmp_path)))}"
    folder = tmp_path / "site"
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{name}.py").write_text(PACKAGE)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    offers = {"coins": "Coins", "broken": "Nothing", "gone": "Coins", "none": "NoTask", "other": "Coins"}
    modules = {kind: f"{name}_gone" if kind == "gone" else name for kind in offers}
    lines = [f"{kind} = {modules[kind]}:{found}" for kind, found in offers.items()]
    (info / "entry_points.txt").write_text("[showhow.tasks]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(folder))
    yield name
    TASK_KINDS._loaded.clear()


def test_a_packages_class_is_loaded_when_its_kind_is_asked_for_and_not_before(tmp_path: Path, package: str) -> None:
    assert load(tmp_path)
    assert task_named("modular_sum", {})
    assert package not in sys.modules
    study = load(tmp_path, changed((SECTION, 'kind = "coins"'), NO_SPLIT))
    assert type(study.task).__name__ == "Coins"
    assert package in sys.modules
    assert task_named("coins", {"bits": 3}).distinct_questions == 8


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("broken", r'entry point "broken" of showhow\.tasks, cannot be loaded: AttributeError: .*Nothing'),
        ("gone", r"cannot be loaded: ModuleNotFoundError: No module named .*_gone"),
        ("none", "is not a subclass of Task"),
        ("other", r'has the kind "coins"; the entry point must be named like it'),
    ],
)
def test_a_broken_entry_point_is_named_with_its_package_when_its_kind_is_asked_for(
    tmp_path: Path, package: str, kind: str, said: str
) -> None:
    answer = complaint(tmp_path, changed((SECTION, f'kind = "{kind}"'), NO_SPLIT))
    assert re.match(rf"study\.toml:6: task\.kind: the package {package} .*{said}", answer)


@pytest.mark.usefixtures("ours")
def test_the_catalogues_list_what_is_registered_and_what_packages_offer(
    package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks"]) == DONE
    shown = capsys.readouterr().out
    assert "parity: `1 0 1` -> 0" in shown
    assert "coins: Coins that fell." in shown
    assert f"broken: the package {package}" in shown
    assert main(["methods"]) == DONE
    shown = capsys.readouterr().out
    assert "plain: Train on explained problems" in shown
    assert (
        "half: Train on half of the budget, for no reason.\n  share = 0.5\n  1. train on half\n  source: nowhere"
        in shown
    )
