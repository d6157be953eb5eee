"""Replies that vLLM writes are ours. Those who have it name its Python by SHOWHOW_VLLM (machines/vllm.py)."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import llama_folder, qwen_folder, seq2seq_folder
from studied import LLAMA, SMALL, studied
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from showhow.errors import TrialError
from showhow.exports.answer import ask
from showhow.home.export import Wish, export_run
from showhow.machines.vllm import VLLM_PYTHON, vllm_python
from showhow.sections.adapter import Lora
from showhow.tasks.asking import Answer, read_question
from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import RepliesSampled
from showhow.training.adapter import with_adapter
from showhow.training.replies.reply import greedy_replies
from showhow.training.replies.vllm_replies import VllmReplies
from showhow.training.tokens import SpecialTokens

SPECIAL = SpecialTokens(0, 2, 1, 304)
needs_vllm = pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM here and no {VLLM_PYTHON}")


@needs_vllm
def test_vllm_writes_the_tokens_that_we_do_and_those_of_new_weights_once_it_has_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    prompts = [random.integers(3, 304, size=size).astype(np.int32) for size in random.integers(1, 30, size=60)]
    config = Qwen2Config(
        vocab_size=304,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
        tie_word_embeddings=True,
        eos_token_id=5,  # which ends nothing: the tokenizer's end does
    )
    torch.manual_seed(0)
    model: Any = Qwen2ForCausalLM(config)
    vllm = VllmReplies(tmp_path, 70, 32, torch.float32)
    several = []
    for _ in range(2):
        vllm.take(model)
        several.append(greedy_replies(vllm, prompts, SPECIAL, 40, 32))
        assert several[-1] == greedy_replies(model, prompts, SPECIAL, 40, 32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    assert several[0] != several[1]
    assert {len(reply) < 40 for reply in several[0]} == {True, False}
    assert greedy_replies(vllm, [], SPECIAL, 40, 32) == []


@needs_vllm
def test_a_study_whose_replies_vllm_writes_comes_out_the_same_and_so_does_predict(tmp_path: Path) -> None:
    one_seed = SMALL.replace("[0, 1]", "[0]").replace("every_examples = 480", "every_examples = 240") + LLAMA
    by_vllm = one_seed.replace("every_examples = 240", 'every_examples = 240, written_by = "vllm"')
    ours, theirs = (studied(tmp_path / name, text) for name, text in (("ours", one_seed), ("theirs", by_vllm)))
    events = [list(read_events(folder.journal)) for folder in (ours, theirs)]
    rows = [{event.split: event.rows for event in told if isinstance(event, RepliesSampled)} for told in events]
    assert rows[0] == rows[1]
    run = export_run(ours, Wish(), lambda _line: None)
    questions = [read_question(run.exported.trial.task, row["question"]) for row in rows[0]["test"]]
    answers = ask(run.folder, run.exported, questions, by_vllm=True)
    assert [one.reply for one in answers if isinstance(one, Answer)] == [row["reply"] for row in rows[0]["test"]]


def test_a_model_that_vllm_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VLLM_PYTHON, sys.executable)  # which is not asked anything
    vllm = VllmReplies(seq2seq_folder(tmp_path / "t5"), 20, 4, torch.float32)
    with pytest.raises(TrialError, match="this one has an encoder"):
        vllm.write([np.array([5], dtype=np.int32)], 1, 3)
    qwen: Any = AutoModelForCausalLM.from_pretrained(qwen_folder(tmp_path / "qwen"))
    with pytest.raises(TrialError, match="no adapters"):
        vllm.take(with_adapter(qwen, Lora(kind="lora", rank=2), 0))


def test_a_vllm_that_ends_is_told_with_what_it_said_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ValueError: no such head size' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setenv(VLLM_PYTHON, str(python))
    vllm = VllmReplies(llama_folder(tmp_path / "llama"), 20, 4, torch.float32)
    with pytest.raises(TrialError, match="vLLM failed: ValueError: no such head size"):
        vllm.write([np.array([5], dtype=np.int32)], 1, 3)
