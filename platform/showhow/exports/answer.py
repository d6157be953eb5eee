"""Prompts an exported model: greedy replies to questions, in float32, read and graded as in an evaluation."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch
from transformers import GenerationConfig
from transformers.utils.logging import disable_progress_bar

from showhow.datasets.tokenizer import StudyTokenizer, pretrained_tokenizer
from showhow.errors import TrialError, UserError
from showhow.models.exported import Exported
from showhow.sections.recipe import PretrainedModel
from showhow.tasks.asking import Answer, Question, Unasked, example_of, target_of
from showhow.training.evaluate import EXTRA_TOKENS
from showhow.training.model import build_model
from showhow.training.replies.reply import Tokens, greedy_replies
from showhow.training.replies.vllm_replies import VllmReplies
from showhow.training.tokens import SpecialTokens

_AT_ONCE = 64


def ask(
    folder: Path, exported: Exported, questions: Sequence[Question], by_vllm: bool = False
) -> list[Answer | Unasked]:
    """Return the model's answers; a question with symbols that the model does not know becomes an `Unasked`. Raises
    UserError for a folder that transformers, or vLLM, cannot load."""
    disable_progress_bar()
    words = replace(pretrained_tokenizer(str(folder), "plain"), frame=exported.frame)
    unasked = [_unknown_in(question.text, words, exported) for question in questions]
    readable = [question for question, why in zip(questions, unasked, strict=True) if why is None]
    answers = iter(_answers(folder, exported, words, readable, by_vllm) if readable else ())
    return [next(answers) if why is None else why for why in unasked]


def _unknown_in(question: str, words: StudyTokenizer, exported: Exported) -> Unasked | None:
    """Return the position of a symbol that no training question could have, as an Unasked; None where there is none."""
    read = words.tokenizer.encode(question, add_special_tokens=False)
    if words.ids.unknown is None or words.ids.unknown not in read.ids:
        return None
    start, stop = read.offsets[read.ids.index(words.ids.unknown)]
    found = question[start:stop].strip()
    example = example_of(exported.trial.task)
    like = "" if example is None else f'; they are like "{example}"'
    return Unasked(
        question,
        f'the model of {exported.run} cannot read "{question}": at position {question.index(found, start) + 1} found '
        f'"{found}", which none of its training questions could have{like}',
    )


def _answers(
    folder: Path, exported: Exported, words: StudyTokenizer, questions: Sequence[Question], by_vllm: bool
) -> list[Answer]:
    level, layout = exported.level, exported.layout
    prompts = [_encoded(words, exported.prompt(question.text), as_prompt=True) for question in questions]
    problems = [question.problem for question in questions]
    targets = [None if problem is None else target_of(problem, level, layout) for problem in problems]
    # Targets are decoded by the tokenizer too, as when a run is evaluated.
    rows = [None if target is None else _encoded(words, target) for target in targets]
    longest = max(exported.reply_tokens, *(0 if row is None else len(row) + 1 for row in rows)) + EXTRA_TOKENS
    greedy = GenerationConfig.from_pretrained(folder)
    special = SpecialTokens(greedy.pad_token_id, greedy.eos_token_id, greedy.bos_token_id, words.vocabulary)
    try:
        model = _in_vllm(folder, exported, prompts, longest) if by_vllm else _loaded(folder, exported, special)
        written = greedy_replies(model, prompts, special, longest, _AT_ONCE)
    except TrialError as error:
        raise UserError(str(error)) from None
    return [
        Answer.of(question.text, _decoded(words, reply), None if row is None else _decoded(words, row), level, layout)
        for question, reply, row in zip(questions, written, rows, strict=True)
    ]


def _in_vllm(folder: Path, exported: Exported, prompts: Sequence[Tokens], longest: int) -> VllmReplies:
    if exported.as_adapter:
        raise UserError(
            f"{folder} contains an adapter, and vLLM reads complete models only; export the run without --adapter"
        )
    return VllmReplies(folder, max(map(len, prompts)) + longest, _AT_ONCE, torch.float32)


def _loaded(folder: Path, exported: Exported, special: SpecialTokens) -> torch.nn.Module:
    base = folder
    if exported.as_adapter:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    model = build_model(PretrainedModel(kind="pretrained", name=str(base)), special, seed=0)
    if exported.as_adapter:
        from peft import PeftModel  # needed only for adapters

        model = PeftModel.from_pretrained(model, folder)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _encoded(words: StudyTokenizer, text: str, as_prompt: bool = False) -> Tokens:
    return words.encode(pa.array([text]), as_prompt).ids


def _decoded(words: StudyTokenizer, tokens: Sequence[int] | Tokens) -> str:
    text: str = words.tokenizer.decode(list(map(int, tokens)), skip_special_tokens=True)
    return text
