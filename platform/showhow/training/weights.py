"""The weight of each target token in the loss: by its row, and by whether it is in the answer or in the explanation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, Int32
from numpy import ndarray
from tokenizers import Tokenizer

from showhow.methods.losses import CrossEntropy, Loss
from showhow.tasks.explain import Level
from showhow.training.tokens import TokenFile

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class TokenWeights:
    """Weights of the target tokens of a file. rows: of each row; answers: how many of a row's last target tokens
    are the answer's, each of which counts `answer_weight` times."""

    rows: Float32[ndarray, " rows"]
    answers: Int32[ndarray, " rows"]
    answer_weight: float

    def at(
        self, file: TokenFile, rows: Int[ndarray, "*shape"], places: Int[ndarray, "*shape"]
    ) -> Float32[ndarray, "*shape"]:
        """Return the weights of tokens at places in the targets of rows, counted from the first target token. Shapes
        are broadcast; places outside a target get an arbitrary one."""
        is_answer = places >= (file.target_lengths - self.answers)[rows]
        counted = np.where(is_answer, np.float32(self.answer_weight), np.float32(1))
        return np.asarray(self.rows[rows] * counted, dtype=np.float32)

    def total(self, file: TokenFile, rows: Int[ndarray, " batch"]) -> float:
        """Return the summed weights of the target tokens of some rows."""
        counted = file.target_lengths[rows] + (self.answer_weight - 1) * self.answers[rows]
        return float((self.rows[rows] * counted).sum())


def weights_of(file: TokenFile, loss: Loss, tokenizer: Tokenizer, level: Level) -> TokenWeights | None:
    """Return the weights of a file's target tokens under a loss; None where all are 1. level: of its
    explanations."""
    answer_weight, by_rows = 1.0, False
    if isinstance(loss, CrossEntropy):
        answer_weight, by_rows = loss.answer_weight, loss.mean_over == "rows"
    rows = np.ones(len(file), dtype=np.float32) if file.weights is None else file.weights
    if answer_weight == 1.0 and not by_rows and (rows == 1.0).all():
        return None
    answers = np.zeros(len(file), dtype=np.int32)
    if answer_weight != 1.0:
        answers = answer_lengths(file, tokenizer, level)
    if by_rows:
        rows = np.asarray(rows / (file.target_lengths + (answer_weight - 1) * answers), dtype=np.float32)
    return TokenWeights(rows, answers, answer_weight)


def answer_lengths(file: TokenFile, tokenizer: Tokenizer, level: Level) -> Int32[ndarray, " rows"]:
    """Return how many of each row's target tokens are the answer's: those that extend beyond the last answer prefix
    and its blanks, and the end token; all of them where there is no explanation."""
    if level is Level.NONE:
        return np.asarray(file.target_lengths, dtype=np.int32)
    prefix = file.layout.answer_prefix.strip()
    counts: list[int] = []
    for first in range(0, len(file), _ROWS_AT_ONCE):
        texts = file.texts("target", _ROWS_AT_ONCE, first)
        for text, found in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
            place = text.rfind(prefix)
            begin = 0 if place < 0 else len(text) - len(text[place + len(prefix) :].lstrip())
            counts.append(1 + sum(end > begin for _, end in found.offsets))
    return np.asarray(np.minimum(counts, file.target_lengths), dtype=np.int32)
