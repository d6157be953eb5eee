"""Defines every metric: its name, unit, direction and meaning. Views, tables, stop rules and tests use these names.

A metric of a run has a plain name (`train_loss`); one of a split has the split as a prefix (`test/accuracy`). A
`Measured` describes a metric of ShowHow; a user's own metric of replies is a subclass of `Metric`, which studies name
in `[evaluation] metrics`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import ClassVar, Literal, NamedTuple, get_args

from showhow.errors import UserError
from showhow.kinds import Catalogue

_Better = Literal["higher", "lower"]
Direction = _Better | None


@dataclass(frozen=True)
class Measured:
    """One measured quantity. `better` is the good direction, or None where there is none."""

    name: str
    unit: str
    better: Direction
    meaning: str


class Reply(NamedTuple):
    """One question of a split with the model's reply.

    target: the right reply, explanation included; text: the model's reply; answer: read from it (None: it has none);
    expected: the right answer; right: whether they are equal; steps_right: share of the explanation's steps that are
    right (None where the level has none)."""

    question: str
    target: str
    text: str
    answer: str | None
    expected: str
    right: bool
    steps_right: float | None


class Metric(ABC):
    """A metric of your own, measured on the replies to a split's questions. A subclass defines its name, its unit, the
    good direction (None: neither), and its meaning."""

    name: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[Direction]
    meaning: ClassVar[str]

    @abstractmethod
    def measure(self, replies: Sequence[Reply]) -> float | None:
        """Return the metric of all replies to a split's questions; None where it is not defined."""


RUN_METRICS = (
    Measured("examples", "examples", None, "training examples seen so far"),
    Measured("tokens", "tokens", None, "training tokens seen so far, prompts and targets, without padding"),
    Measured(
        "flops", "FLOPs", None, "training arithmetic so far: 6 x parameters x tokens (Kaplan et al., arXiv 2001.08361)"
    ),
    Measured("train_loss", "nats per target token", "lower", "training loss, mean since the last report"),
    Measured("gradient_norm", "1", None, "norm of the gradient before clipping, mean since the last report"),
    Measured("learning_rate", "1", None, "learning rate of the last step"),
    Measured("train_seconds", "s", "lower", "wall time spent training so far, evaluation not counted"),
    Measured("eval_seconds", "s", "lower", "wall time spent evaluating so far"),
    Measured("examples_per_second", "examples/s", "higher", "training speed since the last report"),
    Measured(
        "examples_until_solved",
        "examples",
        "lower",
        "examples seen when validation accuracy first reached the solved mark",
    ),
)

SPLIT_METRICS = (
    Measured("accuracy", "share", "higher", "replies with the right answer"),
    Measured("steps_right", "share", "higher", "explanation steps that are right, mean over replies"),
    Measured("first_wrong_step", "step", None, "number of the first wrong step, mean over replies that have one"),
    Measured("right_from_wrong_steps", "share", "lower", "replies with the right answer though a step is wrong"),
    Measured("tokens_per_reply", "tokens", "lower", "tokens the model wrote, mean over replies"),
)

VALIDATION, TEST = "validation", "test"

_BY_NAME = {metric.name: metric for metric in (*RUN_METRICS, *SPLIT_METRICS)}


def _called(cls: type) -> str | None:
    """Return the name of a metric's class; None where it has none, or that of a built-in metric."""
    name = getattr(cls, "name", None)
    return name if isinstance(name, str) and name not in _BY_NAME else None


class _OwnMetrics(Catalogue[Metric]):
    """The metrics of users and of packages."""

    def _breaches(self, cls: type) -> Iterator[str]:
        yield from super()._breaches(cls)
        better = getattr(cls, "better", None)
        if better not in (None, *get_args(_Better)):
            yield f'has better = {better!r}, must be "higher", "lower" or None'
        yield from (f"must define its {name} as text" for name in ("unit", "meaning") if not _is_text(cls, name))
        if signature(cls).parameters:
            yield "must have a constructor without arguments"


def _is_text(cls: type, name: str) -> bool:
    return isinstance(getattr(cls, name, ""), str)


METRICS: Catalogue[Metric] = _OwnMetrics(
    Metric, {}, "showhow.metrics", ("name", "unit", "better", "meaning", "measure"), _called
)


def on_split(split: str, name: str) -> str:
    """Return the logged name of a split's metric: `on_split("test", "accuracy")` is `test/accuracy`."""
    return f"{split}/{find(name).name}"


def is_built_in(logged_name: str) -> bool:
    """True for a metric of ShowHow, with or without a split as prefix; False for a user's metric."""
    return logged_name.rpartition("/")[2] in _BY_NAME


def find(logged_name: str) -> Measured:
    """Return the metric of a logged name, with or without a split as prefix. Raises KeyError for an unknown one."""
    name = logged_name.rpartition("/")[2]
    if name in _BY_NAME:
        return _BY_NAME[name]
    try:
        own = METRICS.find(name)
    except UserError as error:
        raise KeyError(name) from error
    return Measured(own.name, own.unit, own.better, own.meaning)
