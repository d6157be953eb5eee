"""What vLLM cannot write is told before anything starts, and how to get it where it is missing."""

import sys
from pathlib import Path

import pytest
from studies import TEXT, complaint, load

from showhow.machines.vllm import VLLM_PYTHON, vllm_python

BY_VLLM = 'evaluation.written_by="vllm"'


def test_a_study_without_vllm_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VLLM_PYTHON, "nowhere")
    assert vllm_python() is None
    said = complaint(tmp_path, TEXT, BY_VLLM)
    assert f"{VLLM_PYTHON}=nowhere is no Python that can be started" in said
    assert "vllm/bin/pip install vllm" in said
    monkeypatch.delenv(VLLM_PYTHON)
    assert vllm_python() in (None, sys.executable)
    assert load(tmp_path).evaluation.written_by == "showhow"


@pytest.mark.parametrize(
    ("change", "said"), [("model.architecture=t5", "t5 is none"), ("sharding.zero_stage=3", "partitions it")]
)
def test_what_vllm_cannot_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    monkeypatch.setenv(VLLM_PYTHON, sys.executable)
    assert load(tmp_path, TEXT, BY_VLLM).evaluation.written_by == "vllm"
    told = complaint(tmp_path, TEXT, BY_VLLM, change)
    assert 'evaluation.written_by: got "vllm"' in told
    assert said in told
