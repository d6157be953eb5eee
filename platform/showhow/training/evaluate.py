"""Evaluation: the model writes replies to the questions of a split, and every answer and step is graded."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from tokenizers import Tokenizer

from showhow.errors import OutOfMemoryError, TrialError
from showhow.fingerprint import Json
from showhow.metrics import Metric, Reply
from showhow.tasks.base import TextFormat
from showhow.tasks.explain import Level
from showhow.tasks.grading import Grade, grade, read_answer
from showhow.training.memory import give_back_memory, memory_needed_for
from showhow.training.ranks import dealt, from_all, gathered, is_shared_out
from showhow.training.replies.reply import Tokens, greedy_replies
from showhow.training.replies.vllm_replies import VllmReplies
from showhow.training.tokens import SpecialTokens, TokenFile

# A reply may be a little longer than the longest right one, so that a model that does not stop is seen.
EXTRA_TOKENS = 4


@dataclass(frozen=True)
class Evaluation:
    """The result of a model on one split.

    grades: whether each answer is right, in the dataset's order. metrics: by the names of metrics.SPLIT_METRICS; those
    that do not apply at a level are left out. samples: replies for people to read. asked_at_once: the batch size that
    fitted in every process. shortage: what ran out of memory before; empty where nothing did."""

    grades: tuple[bool, ...]
    metrics: dict[str, float]
    samples: list[dict[str, Json]]
    asked_at_once: int
    shortage: str


@dataclass(frozen=True)
class Grading:
    """How replies are read and graded. level: the level whose form they have; metrics: a user's own, computed from all
    replies to a split."""

    tokenizer: Tokenizer
    level: Level
    metrics: tuple[Metric, ...] = ()


def evaluate(
    model: torch.nn.Module | VllmReplies, grading: Grading, file: TokenFile, examples: int, batch_size: int
) -> Evaluation:
    """Write replies to the first `examples` questions of a split, at most `batch_size` at a time, and grade them.

    Processes that train together divide the questions among them, and all return the same result. A process that runs
    out of memory halves its batch size, which gives the same replies.

    Raises TrialError where a user's metric fails. Raises OutOfMemoryError where not even one question at a time fits,
    or, with partitioned weights, when any process runs out of memory."""
    tokenizer, questions = grading.tokenizer, min(examples, len(file))
    rows = dealt(range(questions))
    longest = int(file.target_lengths[:questions].max()) + EXTRA_TOKENS
    written, fitted = _replies_that_fit(model, [file.prompt(row) for row in rows], file.special, longest, batch_size)
    asked_at_once, shortage = min(from_all(fitted))
    texts: list[str] = tokenizer.decode_batch(written, skip_special_tokens=True)
    # Targets are decoded by the tokenizer too, so that what it cannot spell does not count as the model's fault.
    targets: list[str] = tokenizer.decode_batch([file.target(row).tolist() for row in rows], skip_special_tokens=True)
    # The end token counts where it was written: a reply of the greatest length was cut off before it.
    lengths = [min(len(tokens) + 1, longest) for tokens in written]
    grades = [grade(reply, target, grading.level, file.layout) for reply, target in zip(texts, targets, strict=True)]
    rows_of_all = gathered([*zip(targets, texts, grades, lengths, strict=True)])
    targets, texts, grades, lengths = (list(column) for column in zip(*rows_of_all, strict=True))
    samples = [
        _sample(*columns) for columns in zip(file.texts("question", _SAMPLES), targets, texts, grades, strict=False)
    ]
    metrics = _metrics(grades) | {"tokens_per_reply": fmean(lengths)}
    if grading.metrics:
        columns = zip(file.texts("question", questions), targets, texts, grades, strict=True)
        replies = [_reply(*row, grading.level, file.layout) for row in columns]
        metrics |= _own_metrics(grading.metrics, replies)
    return Evaluation(tuple(one.answer_right for one in grades), metrics, samples, asked_at_once, shortage)


_SAMPLES = 20


def _replies_that_fit(
    model: torch.nn.Module | VllmReplies,
    prompts: Sequence[Tokens],
    special: SpecialTokens,
    longest: int,
    batch_size: int,
) -> tuple[list[list[int]], tuple[int, str]]:
    """Return the replies, the batch size that fitted, and what ran out of memory before."""
    shortage = ""
    while True:
        at_once = min(batch_size, max(1, len(prompts)))
        try:
            with memory_needed_for(f"writing replies to {at_once} questions at a time"):
                return greedy_replies(model, prompts, special, longest, batch_size), (batch_size, shortage)
        except OutOfMemoryError as error:
            # Partitioned weights are gathered by all processes for each layer, so one process cannot start again alone.
            if at_once == 1 or isinstance(model, VllmReplies) or is_shared_out(model):
                error.asked_at_once = error.asked_at_once or at_once
                raise
            shortage = shortage or str(error)
        # The memory is free only here, when the error and everything its frames refer to is gone.
        give_back_memory()
        batch_size = at_once // 2


def _metrics(grades: list[Grade]) -> dict[str, float]:
    metrics = {"accuracy": fmean(one.answer_right for one in grades)}
    steps = [one.steps_right for one in grades if one.steps_right is not None]
    if steps:
        metrics["steps_right"] = fmean(steps)
        metrics["right_from_wrong_steps"] = fmean(bool(one.right_from_wrong_steps) for one in grades)
    wrong = [one.first_wrong_step for one in grades if one.first_wrong_step]
    if wrong:
        metrics["first_wrong_step"] = fmean(wrong)
    return metrics


def _reply(question: str, target: str, text: str, one: Grade, level: Level, layout: TextFormat) -> Reply:
    answer, expected = read_answer(text, level, layout), read_answer(target, level, layout) or ""
    return Reply(question, target, text, answer, expected, one.answer_right, one.steps_right)


def _own_metrics(metrics: Sequence[Metric], replies: Sequence[Reply]) -> dict[str, float]:
    """Return a user's metrics of some replies. An exception in a metric becomes a TrialError."""
    measured = {}
    for metric in metrics:
        try:
            value = metric.measure(replies)
        except Exception as error:
            raise TrialError(f"the metric {metric.name} failed: {type(error).__name__}: {error}") from error
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TrialError(f"the metric {metric.name} returned {value!r}; it must return a number, or None")
        measured[metric.name] = float(value)
    return measured


def _sample(question: str, target: str, reply: str, one: Grade) -> dict[str, Json]:
    row: dict[str, Any] = {"question": question, "target": target, "reply": reply}
    return row | {
        "answer_right": one.answer_right,
        "steps_right": one.steps_right,
        "first_wrong_step": one.first_wrong_step,
    }
