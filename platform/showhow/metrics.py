"""Every metric once: its name, unit, direction and meaning. Views, tables, stop rules and tests take the names from
here.

A metric of a whole run stands alone (`train_loss`); one measured on a split carries its name in front
(`test/accuracy`).
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One measured quantity. `better` says which direction is good, or is None where neither is."""

    name: str
    unit: str
    better: Literal["higher", "lower"] | None
    meaning: str


RUN_METRICS = (
    Metric("examples", "examples", None, "training examples seen so far"),
    Metric("tokens", "tokens", None, "training tokens seen so far, prompts and targets, without padding"),
    Metric(
        "flops", "FLOPs", None, "training arithmetic so far: 6 x parameters x tokens (Kaplan et al., arXiv 2001.08361)"
    ),
    Metric("train_loss", "nats per target token", "lower", "training loss, mean since the last report"),
    Metric("gradient_norm", "1", None, "norm of the gradient before clipping, mean since the last report"),
    Metric("learning_rate", "1", None, "learning rate of the last step"),
    Metric("train_seconds", "s", "lower", "wall time spent training so far, evaluation not counted"),
    Metric("eval_seconds", "s", "lower", "wall time spent evaluating so far"),
    Metric("examples_per_second", "examples/s", "higher", "training speed since the last report"),
    Metric(
        "examples_until_solved",
        "examples",
        "lower",
        "examples seen when validation accuracy first reached the solved mark",
    ),
)

SPLIT_METRICS = (
    Metric("accuracy", "share", "higher", "replies with the right answer"),
    Metric("steps_right", "share", "higher", "explanation steps that are right, mean over replies"),
    Metric("first_wrong_step", "step", None, "number of the first wrong step, mean over replies that have one"),
    Metric("right_from_wrong_steps", "share", "lower", "replies with the right answer though a step is wrong"),
    Metric("tokens_per_reply", "tokens", "lower", "tokens the model wrote, mean over replies"),
)

VALIDATION, TEST = "validation", "test"

_BY_NAME = {metric.name: metric for metric in (*RUN_METRICS, *SPLIT_METRICS)}


def on_split(split: str, name: str) -> str:
    """Return the logged name of a split's metric: `on_split("test", "accuracy")` is `test/accuracy`."""
    return f"{split}/{find(name).name}"


def find(logged_name: str) -> Metric:
    """Return the metric behind a logged name, with or without a split in front. Raises KeyError for an unknown one."""
    return _BY_NAME[logged_name.rpartition("/")[2]]
