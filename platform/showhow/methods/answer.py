"""Asks an exported model: greedy replies to questions, in float32, read and graded as in an evaluation."""

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
from showhow.study.exported import Exported
from showhow.study.recipe import PretrainedModel
from showhow.tasks.asking import Answer, Question, target_of
from showhow.training.evaluate import EXTRA_TOKENS
from showhow.training.model import build_model
from showhow.training.reply import Tokens, greedy_replies
from showhow.training.tokens import SpecialTokens

_AT_ONCE = 64


def ask(folder: Path, exported: Exported, questions: Sequence[Question]) -> list[Answer]:
    """Return the model's answers. Raises UserError for a question in symbols that the model does not know, and for a
    folder that transformers cannot load."""
    disable_progress_bar()
    words = replace(pretrained_tokenizer(str(folder), "plain"), frame=exported.frame)
    prompts = [_encoded(words, question.text, as_prompt=True) for question in questions]
    for question, prompt in zip(questions, prompts, strict=True):
        if words.ids.unknown is not None and words.ids.unknown in prompt:
            raise UserError(
                f'the model of {exported.run} cannot read "{question.text}": it holds numbers, words or signs that '
                "none of its training questions could have"
            )
    level, layout = exported.trial.level, exported.layout
    problems = [question.problem for question in questions]
    targets = [None if problem is None else target_of(problem, level, layout) for problem in problems]
    # Read back through the tokenizer too, as when a run is evaluated.
    rows = [None if target is None else _encoded(words, target) for target in targets]
    longest = max(exported.reply_tokens, *(0 if row is None else len(row) + 1 for row in rows)) + EXTRA_TOKENS
    model, special = _loaded(folder, exported, words)
    written = greedy_replies(model, prompts, special, longest, _AT_ONCE)
    return [
        Answer.of(question.text, _decoded(words, reply), None if row is None else _decoded(words, row), level, layout)
        for question, reply, row in zip(questions, written, rows, strict=True)
    ]


def _loaded(folder: Path, exported: Exported, words: StudyTokenizer) -> tuple[torch.nn.Module, SpecialTokens]:
    greedy = GenerationConfig.from_pretrained(folder)
    special = SpecialTokens(greedy.pad_token_id, greedy.eos_token_id, greedy.bos_token_id, words.vocabulary)
    base = folder
    if exported.as_adapter:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    try:
        model = build_model(PretrainedModel(kind="pretrained", name=str(base)), special, seed=0)
    except TrialError as error:
        raise UserError(str(error)) from None
    if exported.as_adapter:
        from peft import PeftModel  # only here

        model = PeftModel.from_pretrained(model, folder)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), special


def _encoded(words: StudyTokenizer, text: str, as_prompt: bool = False) -> Tokens:
    return words.encode(pa.array([text]), as_prompt).ids


def _decoded(words: StudyTokenizer, tokens: Sequence[int] | Tokens) -> str:
    text: str = words.tokenizer.decode(list(map(int, tokens)), skip_special_tokens=True)
    return text
