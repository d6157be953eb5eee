"""The plain torch engine: forward, backward and optimizer step of one device."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

from showhow.methods.losses import CrossEntropy, Loss
from showhow.sections.recipe import Recipe
from showhow.training.batches import StepBatch
from showhow.training.losses import loss_part
from showhow.training.memory import keep_freed_memory
from showhow.training.model import flops_per_token
from showhow.training.precision import computing_type

Read = Callable[[str], torch.Tensor]
Named = dict[str, torch.nn.Parameter]

MOMENTS = ("exp_avg", "exp_avg_sq")
LOSS_SCALE = "loss_scale"
# The parameters of models of at most this size are placed end to end (see _rows). In larger models the saved operations
# are negligible compared to the arithmetic, and a second copy of the weights, even a short-lived one, may not fit.
END_TO_END = 100_000_000


class Engine(Protocol):
    """What training, evaluation and checkpoints need of an engine."""

    model: torch.nn.Module
    flops_per_token: float
    loss: Loss

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the model's forward pass runs."""

    def step(self, batch: StepBatch, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Do one optimizer step on `loss`. Returns this process's part of the loss (nats a target token; the parts of
        all processes add up to it) and the gradient norm before clipping, both as tensors still on the device, so that
        nothing waits for them."""

    def state(self, weights_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the state needed to resume, the same for every engine and number of processes: for each trained
        parameter the complete `weight/NAME`, `exp_avg/NAME` and `exp_avg_sq/NAME`, in float32 and on the CPU. All
        processes must take part, and get the same; a tensor is valid until the next one is yielded. In float16
        `loss_scale` comes first: the factor of the loss, and the number of steps since the last overflow.
        weights_only: yield only `weight/NAME`, at a third of the cost."""

    def load_state(self, read: Read, steps: int) -> None:
        """Resume from a state of this or another engine, after `steps` optimizer steps. `read` returns a tensor of the
        state by its name."""

    def load_weights(self, read: Read) -> None:
        """Load the weights of another training; the optimizer is not changed. `read` returns a tensor by its name,
        `weight/NAME`."""


def learning_rate_at(recipe: Recipe, examples: int) -> float:
    """Return the learning rate after `examples` examples: linear warm-up, then constant, linear to 0, or half a cosine
    to 0 (Loshchilov and Hutter, arXiv 1608.03983)."""
    if examples < recipe.warmup_examples:
        return recipe.learning_rate * (examples + recipe.batch_size) / (recipe.warmup_examples + recipe.batch_size)
    progress = (examples - recipe.warmup_examples) / (recipe.total_examples - recipe.warmup_examples)
    if recipe.schedule == "linear":
        return recipe.learning_rate * (1 - progress)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    return recipe.learning_rate


class PlainEngine:
    """One model on one device, AdamW in float32, autocast where the recipe and the hardware agree.

    Weight decay is applied to matrices only, not to norms and biases, as is usual."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, end_to_end: int = END_TO_END) -> None:
        """Move the model to the GPU if there is one, else leave it on the CPU. end_to_end: the largest number of
        parameters that are placed end to end."""
        self.loss: Loss = CrossEntropy()
        self._device = this_device()
        if self._device.type == "cpu":
            keep_freed_memory()
        self.model, self._recipe = model.to(self._device), recipe
        self._dtype = computing_type(recipe.precision, self._device)
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.flops_per_token = flops_per_token(model)
        self._is_large = sum(parameter.numel() for parameter in trained.values()) > end_to_end
        groups = split_by_decay(trained, lambda parameter: parameter.ndim)
        matrices, others = (_rows(group, self._is_large) for group in groups)
        self._rows = [*matrices, *others]
        self._parameters = [row for row, _ in self._rows]
        self._optimizer = adamw([row for row, _ in matrices], [row for row, _ in others], recipe)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._dtype == torch.float16)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the model's forward pass runs."""
        return nullcontext() if self._dtype == torch.float32 else torch.autocast(self._device.type, dtype=self._dtype)

    def step(self, batch: StepBatch, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Do one optimizer step (see Engine.step). In float16 a step whose gradients overflow is skipped, and the loss
        is scaled less from then on."""
        loss = torch.zeros((), device=self._device)
        for micro_batch in batch.micro_batches:
            moved = {name: tensor.to(self._device, non_blocking=True) for name, tensor in micro_batch.items()}
            with self.autocast():
                part = loss_part(self.model, moved, batch, self.loss)
            self._scaler.scale(part).backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=self._is_large)
        return loss, norm

    def state(self, weights_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the state needed to resume (see Engine.state)."""
        if self._scaler.is_enabled() and not weights_only:
            scaling = self._scaler.state_dict()
            yield LOSS_SCALE, torch.tensor([scaling["scale"], float(scaling["_growth_tracker"])])
        for row, group in self._rows:
            moments = {} if weights_only else _moments(self._optimizer, row)
            for kind, values in {"weight": row.detach(), **moments}.items():
                for (name, parameter), part in zip(group.items(), _apart(values, group), strict=True):
                    yield f"{kind}/{name}", part.view_as(parameter).cpu()

    def load_state(self, read: Read, steps: int) -> None:
        """Resume from a state (see Engine.load_state)."""
        if self._scaler.is_enabled():
            scale, since = read(LOSS_SCALE).tolist()
            self._scaler.load_state_dict(self._scaler.state_dict() | {"scale": scale, "_growth_tracker": int(since)})
        for row, _ in self._rows:
            self._optimizer.state[row] = adamw_state(row, steps)
        self.load_weights(read)
        for row, group in self._rows:
            for kind, values in _moments(self._optimizer, row).items():
                _copy_into(values, group, kind, read)

    def load_weights(self, read: Read) -> None:
        """Load weights (see Engine.load_weights)."""
        for row, group in self._rows:
            _copy_into(row.detach(), group, "weight", read)


def this_device() -> torch.device:
    """Return the device of this process: its GPU, or the CPU where there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def split_by_decay(trained: Named, dimensions: Callable[[torch.nn.Parameter], int]) -> tuple[Named, Named]:
    """Return the matrices, to which weight decay is applied, and the other parameters."""
    matrices = {name: parameter for name, parameter in trained.items() if dimensions(parameter) >= 2}
    return matrices, {name: parameter for name, parameter in trained.items() if name not in matrices}


def adamw(matrices: list[torch.nn.Parameter], others: list[torch.nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    """Return the optimizer of all engines (Loshchilov and Hutter, arXiv 1711.05101)."""
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(recipe.beta_1, recipe.beta_2),
        fused=True,
    )


def adamw_state(parameter: torch.Tensor, steps: int) -> dict[str, torch.Tensor]:
    """Return AdamW's state of a parameter with zero moments, as at its first step, but after `steps` steps."""
    moments = {kind: torch.zeros_like(parameter, requires_grad=False) for kind in MOMENTS}
    return {"step": torch.tensor(float(steps), device=parameter.device), **moments}


def _moments(optimizer: torch.optim.AdamW, row: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    state = optimizer.state[row]
    return {kind: state[kind] for kind in MOMENTS if kind in state}


def _copy_into(values: torch.Tensor, group: Named, kind: str, read: Read) -> None:
    for (name, parameter), part in zip(group.items(), _apart(values, group), strict=True):
        part.view_as(parameter).copy_(read(f"{kind}/{name}"))


def _apart(row: torch.Tensor, group: Named) -> tuple[torch.Tensor, ...]:
    return (row,) if len(group) == 1 else torch.split(row, [parameter.numel() for parameter in group.values()])


def _rows(group: Named, is_large: bool) -> list[tuple[torch.nn.Parameter, Named]]:
    """Return the tensors that the optimizer updates, each with the parameters it consists of.

    The parameters of small models, and their zero gradients, are moved into one row and become views of it: clipping
    and AdamW then take a few operations, however many parameters there are. Those of large models are not moved."""
    if is_large or not group:
        return [(parameter, {name: parameter}) for name, parameter in group.items()]
    parameters = [*group.values()]
    sizes = [parameter.numel() for parameter in parameters]
    row = torch.nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    row.grad = torch.zeros_like(row)
    views = zip(parameters, torch.split(row.detach(), sizes), torch.split(row.grad, sizes), strict=True)
    for parameter, values, gradients in views:
        parameter.data, parameter.grad = values.view_as(parameter), gradients.view_as(parameter)
    return [(row, group)]
