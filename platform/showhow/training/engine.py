"""The plain torch engine: forward, backward and optimizer step of one device."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch.nn.functional import cross_entropy

from showhow.study.recipe import Recipe
from showhow.training.batches import IGNORED, Batch
from showhow.training.lean import lean_loss
from showhow.training.memory import keep_freed_memory
from showhow.training.model import is_seq2seq


class Engine(Protocol):
    """What the training loop needs of an engine."""

    model: torch.nn.Module

    def step(self, micro_batches: list[Batch], learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Do one optimizer step. Returns the mean loss per target token (nats) and the gradient norm before clipping,
        both as tensors still on the device, so that nothing waits for it."""


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
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices = _end_to_end([parameter for parameter in trained if parameter.ndim >= 2], self._device)
        others = _end_to_end([parameter for parameter in trained if parameter.ndim < 2], self._device)
        self._parameters = [matrices, others]
        self._optimizer = torch.optim.AdamW(
            [{"params": [matrices], "weight_decay": recipe.weight_decay}, {"params": [others], "weight_decay": 0.0}],
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

    def step(self, micro_batches: list[Batch], learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Do one optimizer step over micro-batches that together make a batch (see Engine.step)."""
        targets = sum(int((batch["labels"] != IGNORED).sum()) for batch in micro_batches)
        loss = torch.zeros((), device=self._device)
        for batch in micro_batches:
            moved = {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.items()}
            with self.autocast():
                part = response_loss(self.model, moved) / targets
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=False)
        return loss, norm


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
