"""The plain torch engine: forward, backward and optimizer step of one device."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch.nn.functional import cross_entropy

from showhow.study.recipe import Recipe
from showhow.training.batches import IGNORED, Batch, StepBatch
from showhow.training.lean import lean_loss
from showhow.training.memory import keep_freed_memory
from showhow.training.model import is_seq2seq

Read = Callable[[str], torch.Tensor]


class Engine(Protocol):
    """What training, evaluation and checkpoints need of an engine."""

    model: torch.nn.Module

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the model's forward pass runs."""

    def step(self, batch: StepBatch, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Do one optimizer step. Returns this process's part of the mean loss per target token (nats; the parts of all
        processes add up to it) and the gradient norm before clipping, both as tensors still on the device, so that
        nothing waits for them."""

    def state(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield what is needed to go on, the same whatever the engine and the number of processes: of each trained
        parameter `weight/NAME`, `exp_avg/NAME` and `exp_avg_sq/NAME`, whole, in float32 and on the CPU. All processes
        must take part, and get the same; a tensor is valid until the next one is asked for."""

    def load_state(self, read: Read, steps: int) -> None:
        """Go on from a state of this or another engine, after so many optimizer steps. `read` returns a tensor of the
        state by its name."""


def learning_rate_at(recipe: Recipe, examples: int) -> float:
    """Return the learning rate after so many examples: linear warm-up, then constant, linear to 0, or half a cosine to
    0 (Loshchilov and Hutter, arXiv 1608.03983)."""
    if examples < recipe.warmup_examples:
        return recipe.learning_rate * (examples + recipe.batch_size) / (recipe.warmup_examples + recipe.batch_size)
    progress = (examples - recipe.warmup_examples) / (recipe.max_examples - recipe.warmup_examples)
    if recipe.schedule == "linear":
        return recipe.learning_rate * (1 - progress)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    return recipe.learning_rate


def computes_in_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 matrix products run in hardware, so that autocast is faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = torch.backends.cpu.get_cpu_capability()
    return bool(flags.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported())


class PlainEngine:
    """One model on one device, AdamW in float32, autocast to bfloat16 where the recipe and the hardware agree.

    Weight decay is taken from matrices only, not from norms and biases, as is usual."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe) -> None:
        """Move the model to the GPU if there is one, else leave it on the CPU."""
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self._device.type == "cpu":
            keep_freed_memory()
        self.model = model.to(self._device)
        self._recipe = recipe
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        matrices = {name: parameter for name, parameter in trained.items() if parameter.ndim >= 2}
        others = {name: parameter for name, parameter in trained.items() if parameter.ndim < 2}
        self._rows = [(_end_to_end([*group.values()], self._device), group) for group in (matrices, others)]
        self._parameters = [row for row, _ in self._rows]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [row], "weight_decay": decay}
                for row, decay in zip(self._parameters, (recipe.weight_decay, 0.0), strict=True)
            ],
            lr=recipe.learning_rate,
            betas=(recipe.beta_1, recipe.beta_2),
            fused=True,
        )

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the model's forward pass runs."""
        wanted = self._recipe.precision
        if wanted == "bfloat16" or (wanted == "auto" and computes_in_bfloat16(self._device)):
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()

    def step(self, batch: StepBatch, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Do one optimizer step (see Engine.step)."""
        loss = torch.zeros((), device=self._device)
        for micro_batch in batch.micro_batches:
            moved = {name: tensor.to(self._device, non_blocking=True) for name, tensor in micro_batch.items()}
            with self.autocast():
                part = response_loss(self.model, moved) / batch.targets
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=False)
        return loss, norm

    def state(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield what is needed to go on (see Engine.state)."""
        for row, group in self._rows:
            moments = self._optimizer.state[row]
            kinds = {"weight": row.detach()} | {kind: moments[kind] for kind in _MOMENTS if kind in moments}
            for kind, values in kinds.items():
                for (name, parameter), part in zip(group.items(), _apart(values, group), strict=True):
                    yield f"{kind}/{name}", part.view_as(parameter).cpu()

    def load_state(self, read: Read, steps: int) -> None:
        """Go on from a state (see Engine.load_state)."""
        for row, group in self._rows:
            moments = {kind: torch.zeros_like(row) for kind in _MOMENTS}
            for kind, values in {"weight": row.detach(), **moments}.items():
                for (name, parameter), part in zip(group.items(), _apart(values, group), strict=True):
                    part.view_as(parameter).copy_(read(f"{kind}/{name}"))
            self._optimizer.state[row] = {"step": torch.tensor(float(steps), device=self._device), **moments}


_MOMENTS = ("exp_avg", "exp_avg_sq")


def _apart(row: torch.Tensor, group: dict[str, torch.nn.Parameter]) -> tuple[torch.Tensor, ...]:
    return torch.split(row, [parameter.numel() for parameter in group.values()])


def _end_to_end(parameters: list[torch.nn.Parameter], device: torch.device) -> torch.nn.Parameter:
    """Move parameters, and gradients of zero, into one row each, of which they become views: clipping and AdamW then
    take a few operations, however many parameters there are."""
    sizes = [parameter.numel() for parameter in parameters]
    row = torch.nn.Parameter(torch.cat([torch.empty(0, device=device), *(p.detach().flatten() for p in parameters)]))
    row.grad = torch.zeros_like(row)
    views = zip(parameters, torch.split(row.detach(), sizes), torch.split(row.grad, sizes), strict=True)
    for parameter, values, gradients in views:
        parameter.data, parameter.grad = values.view_as(parameter), gradients.view_as(parameter)
    return row


def response_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the summed cross-entropy (nats) over the target tokens of a batch, computed in float32.

    A causal model predicts token i from those before it, so its labels are shifted by one; a seq2seq model's are not,
    as the model shifts its decoder input itself."""
    lean = lean_loss(model)
    if lean is not None:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        with torch.autocast("cpu", enabled=False):
            return lean(model, batch, dtype)
    labels = batch["labels"]
    if is_seq2seq(model):
        logits = model(**batch, use_cache=False).logits
    else:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs, use_cache=False).logits[:, :-1]
        labels = labels[:, 1:]
    chosen = labels != IGNORED
    return cross_entropy(logits[chosen].float(), labels[chosen], reduction="sum")
