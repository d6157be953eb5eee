"""Replies of a causal model by vLLM, in a process of its own (vllm_process.py): for large models on GPUs. vLLM stores
their keys and values in pages (arXiv 2309.06180)."""

import json
import os
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import IO, Any

import torch
from jaxtyping import Int32
from numpy import ndarray
from safetensors.torch import save_file
from transformers import AutoConfig
from transformers.core_model_loading import revert_weight_conversion

from showhow.errors import OutOfMemoryError, TrialError
from showhow.machines.vllm import how_to_get_vllm, vllm_python
from showhow.models.settings import positions_of
from showhow.training.adapter import is_adapted
from showhow.training.ranks import is_shared_out

_PROCESS = Path(__file__).with_name("vllm_process.py")
# The share of the memory that is free when vLLM starts; the rest is for the next peak of training.
_SHARE = 0.8
_PAGE = 16  # tokens whose keys and values are stored together
# Variables of a process group that trains together, to which vLLM's process does not belong; and variables that keep
# vLLM to one process and off the network.
_OF_THIS_GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_ALONE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


class VllmReplies:
    """A causal model in a Hugging Face folder. A vLLM process loads it when the first replies are written."""

    def __init__(self, folder: Path, longest: int, at_once: int, dtype: torch.dtype) -> None:
        """folder: with the model, or an empty one for `take`; longest: most tokens of a question with its reply;
        at_once: the batch size; dtype: the computing type."""
        self._folder, self._longest, self._at_once, self._dtype = folder, longest, at_once, dtype
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._are_new_weights = False

    def take(self, model: Any) -> None:
        """Take the current weights of a model for further replies. Raises TrialError for a model that vLLM cannot
        load."""
        if is_adapted(model) or is_shared_out(model):
            raise TrialError("vLLM reads complete models only, no adapters and no weights partitioned over processes")
        # Not by save_pretrained, which lets only the first of several processes write, and each has its own vLLM.
        config = deepcopy(model.config)
        config.architectures = [type(model).__name__]
        # vLLM 0.32 reads new embeddings, but not the output matrix that is tied to them.
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
        config.save_pretrained(self._folder)
        # Copies, as parameters may be views of one row, which the file would contain once for each of them.
        weights = {name: value.to(self._dtype, copy=True) for name, value in model.state_dict().items()}
        save_file(revert_weight_conversion(model, weights), self._folder / "model.safetensors", {"format": "pt"})
        self._are_new_weights = self._process is not None

    def write(self, prompts: Sequence[Int32[ndarray, " tokens"]], end: int, max_new_tokens: int) -> list[list[int]]:
        """Return for each prompt the token ids that the model writes, without the end token, as greedy_replies does.
        Raises TrialError where vLLM fails, and OutOfMemoryError."""
        request = {"prompts": [prompt.tolist() for prompt in prompts], "end": end, "max_new_tokens": max_new_tokens}
        if self._process is None:
            self._start()
        answer = self._answer_to(request | {"are_new_weights": self._are_new_weights})
        self._are_new_weights = False
        return [reply[: reply.index(end)] if end in reply else reply for reply in answer["replies"]]

    def _start(self) -> None:
        python = vllm_python()
        if python is None:
            raise TrialError(how_to_get_vllm())
        settings = self._settings()
        self._process = subprocess.Popen(
            [python, "-I", str(_PROCESS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in _OF_THIS_GROUP}
            | _ALONE
            | _this_device(),
        )
        weakref.finalize(self, _end, self._process)
        self._answer_to(settings)

    def _settings(self) -> dict[str, Any]:
        config = AutoConfig.from_pretrained(self._folder)
        if config.is_encoder_decoder:
            raise TrialError("vLLM writes replies of causal models only, and this one has an encoder")
        places = min(self._longest, positions_of(config.to_dict()) or self._longest)
        free, total = _memory()
        inner = config.get_text_config()
        token_bytes = (
            2 * inner.num_hidden_layers * inner.hidden_size * self._dtype.itemsize
        )  # less with grouped queries
        reply_bytes = (places // _PAGE + 2) * _PAGE * token_bytes
        weights = sum(path.stat().st_size for path in self._folder.glob("*.safetensors"))
        room = int(_SHARE * free) - weights
        if room < reply_bytes:
            raise OutOfMemoryError(f"out of memory: vLLM finds {free / 1e9:.1f} GB free during training", 0, 1)
        return {
            "folder": str(self._folder),
            "dtype": str(self._dtype).removeprefix("torch."),
            "places": places,
            "at_once": self._at_once,
            "share": _SHARE * free / total,
            "cache_bytes": min(room, self._at_once * reply_bytes),
        }

    def _answer_to(self, request: dict[str, Any]) -> dict[str, Any]:
        process: Any = self._process
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            answered = process.stdout.readline()
        except BrokenPipeError:
            answered = ""
        if not answered:
            process.wait()
            self._log.seek(0)
            lines = [line for line in self._log.read().splitlines() if "Error" in line] or ["it was killed"]
            message = f"vLLM failed: {lines[-1].strip()}"
            raise OutOfMemoryError(message, 0, self._at_once) if "out of memory" in message else TrialError(message)
        answer: dict[str, Any] = json.loads(answered)
        return answer


def _this_device() -> dict[str, str]:
    """Return the environment variables that show another process only this one's GPU."""
    if not torch.cuda.is_available():
        return {}
    number, shown = torch.cuda.current_device(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": shown.split(",")[number] if shown else str(number)}


def _memory() -> tuple[int, int]:
    """Return how many bytes of this device are free, and how many there are."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")


def _end(process: "subprocess.Popen[str]") -> None:
    try:
        process.communicate(timeout=30)  # closes its input, at which it ends
    except subprocess.TimeoutExpired:
        process.kill()
