"""Evaluation: the model writes replies to the questions of a split, and every answer and step is graded."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from tokenizers import Tokenizer

from showhow.fingerprint import Json
from showhow.tasks.explain import Level
from showhow.tasks.grading import Grade, grade
from showhow.training.ranks import dealt, gathered
from showhow.training.reply import greedy_replies
from showhow.training.tokens import TokenFile

# A reply may be a little longer than any right one, so that a rambling model shows.
EXTRA_TOKENS = 4


@dataclass(frozen=True)
class Evaluation:
    """What a model did on one split. grades: for each question in the dataset's order. metrics: by the names of
    metrics.SPLIT_METRICS; those that do not apply at a level are left out. samples: replies for people to read."""

    grades: tuple[bool, ...]
    metrics: dict[str, float]
    samples: list[dict[str, Json]]


def evaluate(
    model: torch.nn.Module, tokenizer: Tokenizer, file: TokenFile, level: Level, examples: int, batch_size: int
) -> Evaluation:
    """Ask the first `examples` questions of a split and grade the replies, at most `batch_size` at a time. Processes
    that train together deal the questions among them, and get the same."""
    questions = min(examples, len(file))
    rows = dealt(range(questions))
    longest = int(file.target_lengths[:questions].max()) + EXTRA_TOKENS
    written = greedy_replies(model, [file.prompt(row) for row in rows], file.special, longest, batch_size)
    texts: list[str] = tokenizer.decode_batch(written, skip_special_tokens=True)
    # Targets are read back through the tokenizer too, so that what it cannot spell is not held against the model.
    targets: list[str] = tokenizer.decode_batch([file.target(row).tolist() for row in rows], skip_special_tokens=True)
    # The end token counts where it was written: a reply of the greatest length was cut before it.
    lengths = [min(len(tokens) + 1, longest) for tokens in written]
    grades = [grade(reply, target, level, file.layout) for reply, target in zip(texts, targets, strict=True)]
    everyones = gathered([*zip(targets, texts, grades, lengths, strict=True)])
    targets, texts, grades, lengths = (list(column) for column in zip(*everyones, strict=True))
    samples = [
        _sample(*columns) for columns in zip(file.texts("question", _SAMPLES), targets, texts, grades, strict=False)
    ]
    metrics = _metrics(grades) | {"tokens_per_reply": fmean(lengths)}
    return Evaluation(tuple(one.answer_right for one in grades), metrics, samples)


_SAMPLES = 20


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


def _sample(question: str, target: str, reply: str, one: Grade) -> dict[str, Json]:
    row: dict[str, Any] = {"question": question, "target": target, "reply": reply}
    return row | {
        "answer_right": one.answer_right,
        "steps_right": one.steps_right,
        "first_wrong_step": one.first_wrong_step,
    }
