"""Laws of the compiled operations: the numbers of transformers for models of any shape and on any number of threads,
and no fault where they cannot be made."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from showhow.training.batches import IGNORED
from showhow.training.cpu import native
from showhow.training.losses import response_loss

needs_compiler = pytest.mark.skipif(native.compiled() is None, reason="no C++ compiler here")


@pytest.fixture
def found() -> Iterator[None]:
    """What is found out about compilers in a test is forgotten after it."""
    native.compiled.cache_clear()
    yield
    native.compiled.cache_clear()


def model_of(architecture: str, heads: int, width: int, size: int, layers: int, vocabulary: int) -> Any:
    torch.manual_seed(heads + width + size)
    if architecture == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary, hidden_size=size, intermediate_size=size + 6, num_hidden_layers=layers,
                num_attention_heads=heads, num_key_value_heads=heads, head_dim=width, initializer_range=0.2,
            )
        )  # fmt: skip
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocabulary, d_model=size, d_kv=width, d_ff=size + 6, num_layers=layers, num_heads=heads,
            dropout_rate=0.0, decoder_start_token_id=0,
        )
    )  # fmt: skip


def batch_of(architecture: str, rows: int, prompt: int, target: int, vocabulary: int) -> dict[str, torch.Tensor]:
    tokens = torch.randint(0, vocabulary, (rows, prompt + target))
    if architecture == "t5":
        mask = torch.ones(rows, prompt, dtype=torch.int64)
        mask[0, prompt // 2 + 1 :] = 0
        labels = tokens[:, prompt:].clone()
        labels[-1, target // 2 + 1 :] = IGNORED
        return {"input_ids": tokens[:, :prompt], "attention_mask": mask, "labels": labels}
    labels = tokens.clone()
    labels[:, :prompt] = IGNORED
    return {"input_ids": tokens, "labels": labels}


def loss_and_gradient(model: Any, batch: dict[str, torch.Tensor], is_lean: bool) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = response_loss(model, batch, is_lean)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@needs_compiler
@settings(max_examples=100, deadline=None)
@given(
    architecture=st.sampled_from(["llama", "t5"]),
    heads=st.integers(1, 3),
    pairs=st.integers(1, 20),
    part=st.integers(1, 14),
    layers=st.integers(1, 2),
    vocabulary=st.integers(3, 300),
    rows=st.integers(1, 3),
    prompt=st.integers(1, 40),
    target=st.integers(1, 40),
    threads=st.integers(1, 3),
)
def test_loss_and_gradients_are_those_of_transformers_whatever_the_sizes(
    architecture: str, heads: int, pairs: int, part: int, layers: int, vocabulary: int, rows: int, prompt: int,
    target: int, threads: int,
) -> None:  # fmt: skip
    model = model_of(architecture, heads, 2 * pairs, part * heads, layers, vocabulary)
    batch = batch_of(architecture, rows, prompt, target, vocabulary)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours, theirs = (loss_and_gradient(model, batch, is_lean) for is_lean in (True, False))
    finally:
        torch.set_num_threads(before)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert float((ours[1] - theirs[1]).norm()) <= 1e-4 * float(theirs[1].norm()) + 1e-6


@needs_compiler
@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_the_same_batch_gives_the_same_gradients_to_the_bit_on_any_run(architecture: str) -> None:
    model = model_of(architecture, 2, 16, 32, 2, 40)
    batch = batch_of(architecture, 4, 10, 12, 40)
    first, second = (loss_and_gradient(model, batch, True) for _ in range(2))
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])


@needs_compiler
@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_model_that_has_diverged_has_no_finite_loss(architecture: str) -> None:
    model = model_of(architecture, 2, 16, 32, 2, 40)
    with torch.no_grad():
        next(model.parameters())[:] = torch.nan
    assert not torch.isfinite(response_loss(model, batch_of(architecture, 2, 5, 6, 40)))


@needs_compiler
def test_the_library_is_made_once_and_kept_for_its_user_alone(
    found: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.compiled() is not None
    (made,) = (tmp_path / "showhow").iterdir()
    native.compiled.cache_clear()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    assert native.compiled() is not None
    assert [*(tmp_path / "showhow").iterdir()] == [made]
    assert stat.S_IMODE((tmp_path / "showhow").stat().st_mode) == 0o700


def test_a_cache_that_others_can_write_to_is_not_trusted(
    found: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "showhow").mkdir()
    (tmp_path / "showhow").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.compiled() is None


def test_without_a_compiler_models_run_as_transformers_has_them(
    found: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert native.compiled() is None
    assert not native.can_compute(torch.float32)
    assert torch.isfinite(response_loss(model_of("llama", 2, 16, 32, 1, 40), batch_of("llama", 2, 5, 6, 40)))


def test_a_compiler_that_fails_is_as_good_as_none(found: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert native.compiled() is None
