"""Levels and controls: how much of a worked solution a model is shown.

Every level is rendered from the same steps, so tasks and levels vary independently. A control has the length of a real
explanation (the study sets of which level) and explains nothing: it shows whether the explanation helps, or only the
additional tokens.
"""

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import starmap

from showhow.tasks.base import Problem, TextFormat


class Level(StrEnum):
    """How much explanation is shown. The last two are controls."""

    NONE = "none"
    SHORT = "short"
    MEDIUM = "medium"
    LONG = "long"
    SHUFFLED = "shuffled"
    FILLER = "filler"

    @property
    def is_control(self) -> bool:
        """True for levels that have an explanation's length and explain nothing."""
        return self in (Level.SHUFFLED, Level.FILLER)

    @property
    def has_steps(self) -> bool:
        """True where a reply contains steps that can be right or wrong."""
        return self in (Level.SHORT, Level.MEDIUM, Level.LONG)


FILLER_SYMBOL = "."

# A symbol is one token of the from-scratch tokenizer: a number with all its digits, a word, or a sign, the latter two
# with adjacent blanks. So joining a text's symbols gives the text, and a number is the same symbol in every position.
SYMBOL = re.compile(r"\d+| ?[^\W\d_]+ ?| ?[^\w\s] ?|\s|_")


def symbols(text: str) -> list[str]:
    """Split a text into the symbols that the from-scratch tokenizer counts as tokens; joined they are the text."""
    return SYMBOL.findall(text)


_NUMBER, _WORD, _SIGN, _BLANK, _ALONE = "0a+ _"


class _Kinds(dict[int, str]):
    """The kind of a character (by its code) in `SYMBOL`: part of a number or word, a sign, a blank, or a symbol."""

    def __missing__(self, code: int) -> str:
        patterns = {_NUMBER: r"\d", _WORD: r"[^\W\d_]", _SIGN: r"[^\w\s]", _BLANK: " "}
        self[code] = next((kind for kind, pattern in patterns.items() if re.match(pattern, chr(code))), _ALONE)
        return self[code]


_KINDS = _Kinds()


def count_symbols(texts: Sequence[str]) -> int:
    """Return the total number of symbols of some texts: as many as `symbols` returns, but without splitting them."""
    import numpy as np  # takes 60 ms to import

    kinds = "\n".join(["", *texts, ""]).translate(_KINDS)  # a line break is a symbol and separates the texts
    kind = np.frombuffer(kinds.encode("ascii"), dtype=np.uint8)
    number, word = kind == ord(_NUMBER), kind == ord(_WORD)
    takes_blanks = word | (kind == ord(_SIGN))
    continues = (number[1:] & number[:-1]) | (word[1:] & word[:-1])
    taken = (kind == ord(_BLANK))[1:-1] & (takes_blanks[:-2] | takes_blanks[2:])
    return int(kind.size - continues.sum() - taken.sum()) - (len(texts) + 1)


def explain(problem: Problem, level: Level, layout: TextFormat) -> str:
    """Return the target at a real level (none, short, medium, long): the steps, then the answer.

    With `none` the target is the bare answer, as in the label-only rows of Ballout et al.
    """
    if level is Level.NONE:
        return problem.answer
    return _with_answer(problem, level, problem.answer, layout)


def render(problem: Problem, level: Level, layout: TextFormat, control_length: Level, other: Problem | None) -> str:
    """Return the target at any level. control_length: the level whose length controls have; other: the problem whose
    steps `shuffled` shows."""
    if level is Level.FILLER:
        return filler(problem, control_length, layout)
    if level is not Level.SHUFFLED:
        return explain(problem, level, layout)
    if other is None:
        raise ValueError("the control `shuffled` needs another problem")
    return shuffled(problem, other, control_length, layout)


def shuffled(problem: Problem, other: Problem, length_of: Level, layout: TextFormat) -> str:
    """Return the control that shows the steps of `other`, then the answer of `problem`."""
    return _with_answer(other, length_of, problem.answer, layout)


def filler(problem: Problem, length_of: Level, layout: TextFormat) -> str:
    """Return the control with a filler symbol for each symbol of the real explanation, then the answer.

    The count is in symbols; for other tokenizers, tokenisation repeats the filler to the exact number of that
    tokenizer's tokens.
    """
    ending = layout.answer_prefix + problem.answer
    count = len(symbols(explain(problem, length_of, layout))) - len(symbols(ending))
    return FILLER_SYMBOL * count + ending


def _with_answer(problem: Problem, level: Level, answer: str, layout: TextFormat) -> str:
    word: Callable[..., str] = getattr(problem.wording, level)
    return layout.step_separator.join([*filter(None, starmap(word, problem.steps)), layout.answer_prefix + answer])
