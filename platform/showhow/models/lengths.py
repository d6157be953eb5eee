"""The lengths of a dataset's texts, and the size of the vocabulary made for them, estimated from drawn problems. Pure;
no dataset is generated."""

from functools import cache
from statistics import fmean
from typing import NamedTuple

from showhow.models.chat import frame_tokens
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.sections.trial import Trial
from showhow.seeds import rng_for
from showhow.tasks.base import Problem, Task
from showhow.tasks.explain import FILLER_SYMBOL, Level, explain, render, symbols

_PROBLEMS_DRAWN = 200
_SPECIAL_TOKENS = 3  # padding, the end, the unknown


class Lengths(NamedTuple):
    """Symbols of a question and of a target (with its end token): the means, and the longest drawn.

    A tokenizer made for a study has one token for each symbol; pretrained tokenizers use about as many tokens, some
    fewer, some more."""

    prompt: float
    target: float
    longest_prompt: int
    longest_target: int

    @property
    def tokens(self) -> float:
        """The mean length of a question with its target."""
        return self.prompt + self.target


def training_lengths(trial: Trial) -> Lengths:
    """Return the lengths of a trial's training examples, with the frame of a chat template; rows longer than
    data.max_tokens are left out of the dataset."""
    found, frame, most = mean_symbols(trial.dataset(TRAIN)), frame_tokens(trial.model), trial.data.max_tokens
    prompt = min(found.longest_prompt + frame, most - 1)
    return Lengths(found.prompt + frame, found.target, prompt, min(found.longest_target, most - prompt))


def mean_symbols(spec: DatasetSpec) -> Lengths:
    """Return the lengths of a dataset's texts."""
    return _lengths(spec.task, spec.level, spec.control_length)


@cache
def _lengths(task: Task, level: Level, control_length: Level) -> Lengths:
    layout, problems = task.text_format, _drawn(task)
    prompts = [len(symbols(problem.question)) for problem in problems]
    targets = [
        len(symbols(render(problem, level, layout, control_length, other))) + 1
        for problem, other in zip(problems, problems[1:] + problems[:1], strict=True)
    ]
    return Lengths(fmean(prompts), fmean(targets), max(prompts), max(targets))


@cache
def _drawn(task: Task) -> list[Problem]:
    rng = rng_for("plan", task.identity)
    return [task.draw(rng) for _ in range(_PROBLEMS_DRAWN)]


@cache
def vocabulary_size(task: Task) -> int:
    """Return the vocabulary size of the tokenizer made from a task's symbols: special tokens, each number, and the
    words and signs found in drawn problems."""
    texts = [FILLER_SYMBOL]
    for problem in task.listed or _drawn(task):
        texts += [problem.question, *(explain(problem, level, task.text_format) for level in Level if level.has_steps)]
    found = {symbol for text in texts for symbol in symbols(text)}
    largest = task.largest_number
    return _SPECIAL_TOKENS + largest + 1 + sum(not (symbol.isdecimal() and int(symbol) <= largest) for symbol in found)


def vocabulary_of(trial: Trial) -> int:
    """Return the size of the vocabulary that the splits of a trial share."""
    return max(vocabulary_size(trial.dataset(split).task) for split in trial.splits)
