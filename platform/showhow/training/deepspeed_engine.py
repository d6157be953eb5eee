"""The DeepSpeed engine: one model over several devices, or with parts offloaded to other memory.

It uses the process group of `torch.distributed`, and where there is none it creates a group of this process alone.
DeepSpeed's configuration is made in machines/deepspeed_config.py."""

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import distributed

from showhow.errors import TrialError, UserError
from showhow.machines.deepspeed_config import Precision, deepspeed_config, open_settings
from showhow.machines.layout import Layout
from showhow.methods.losses import CrossEntropy, Loss
from showhow.sections.recipe import ModelSpec, PretrainedModel, Recipe
from showhow.training.adapter import is_adapted
from showhow.training.batches import Batch, StepBatch
from showhow.training.engine import (
    LOSS_SCALE,
    MOMENTS,
    Read,
    adamw,
    adamw_state,
    split_by_decay,
    this_device,
)
from showhow.training.losses import loss_part
from showhow.training.memory import keep_freed_memory
from showhow.training.model import flops_per_token
from showhow.training.precision import computing_type
from showhow.training.ranks import rank, world_size

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read once, when DeepSpeed is first imported

import deepspeed
from deepspeed.runtime.zero.partition_parameters import is_zero_param
from deepspeed.utils import (
    lazy_init_hp_params_optimizer_state,
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)

deepspeed.utils.logger.setLevel(logging.ERROR)
# DeepSpeed calls deprecated names of torch.distributed at every step.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")


def check_settings(own: Mapping[str, Any]) -> None:
    """Let DeepSpeed check settings of the user's own. Raises UserError with the names or values that it refuses."""
    try:
        deepspeed.DeepSpeedConfig({"train_batch_size": 1, **open_settings(own)})
    except ValidationError as error:
        faults = [
            f"sharding.deepspeed: DeepSpeed refuses {'.'.join(map(str, one['loc']))} = {json.dumps(one['input'])} of "
            f"{error.title}: {one['msg']}"
            for one in error.errors()
        ]
        raise UserError("\n".join(faults)) from None
    except Exception as error:  # noqa: BLE001 - of DeepSpeed, which raises several kinds
        raise UserError(f"sharding.deepspeed: DeepSpeed refuses these settings: {error}") from None


class DeepSpeedEngine:
    """One model, AdamW in float32 over all processes by ZeRO (Rajbhandari et al., arXiv 1910.02054). See Engine."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, layout: Layout) -> None:
        """Partition the model over the processes. It must be the same in all of them."""
        _join()
        self.loss: Loss = CrossEntropy()
        self.model, self._device = model, this_device()
        if self._device.type == "cpu":
            keep_freed_memory()
        self._trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        trained = sum(_shape(parameter).numel() for parameter in self._trained.values())
        self.flops_per_token = flops_per_token(model) if is_adapted(model) else 6.0 * trained
        matrices, others = split_by_decay(self._trained, lambda parameter: len(_shape(parameter)))
        self._optimizer = adamw([*matrices.values()], [*others.values()], recipe)
        self._precision = _precision(recipe, self._device)
        settings = deepspeed_config(recipe, layout, self._precision, trained)
        self._stage: int = settings["zero_optimization"]["stage"]
        # The lean losses read float32 weights, which stage 3 gathers only while transformers' own modules run.
        loss = _Loss(model, may_be_lean=self._stage < 3 and self._precision != "float16")
        with redirect_stdout(io.StringIO()):  # on a CPU it prints that it could build an extension
            self._engine: Any = deepspeed.initialize(model=loss, optimizer=self._optimizer, config=settings)[0]
        self._set_moments_to_zero(0)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the model's forward pass runs."""
        if self._precision == "bfloat16":
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()  # in float16 the weights themselves have that type

    def step(self, batch: StepBatch, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Do one optimizer step (see Engine.step)."""
        loss = torch.zeros((), device=self._device)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        for index, micro_batch in enumerate(batch.micro_batches):
            self._engine.set_gradient_accumulation_boundary(index + 1 == len(batch.micro_batches))
            moved = {name: tensor.to(self._device, non_blocking=True) for name, tensor in micro_batch.items()}
            part = self._engine(moved, batch, self.loss)
            # DeepSpeed takes the mean over the processes, and the sum is needed.
            self._engine.backward(part * world_size(), scale_wrt_gas=False)
            loss += part.detach()
        if self._stage == 0:  # here DeepSpeed clips, but does not return the norm before clipping
            norm = torch.nn.utils.get_total_norm([one.grad for one in self._trained.values() if one.grad is not None])
            self._engine.step()
            return loss, norm
        self._engine.step()
        return loss, torch.as_tensor(self._engine.get_global_grad_norm(), device=self._device)

    def state(self, weights_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the state needed to resume (see Engine.state)."""
        if self._precision == "float16" and not weights_only:
            scaler = self._engine.optimizer.loss_scaler
            since = (scaler.cur_iter - scaler.last_overflow_iter - 1) % scaler.scale_window
            yield LOSS_SCALE, torch.tensor([scaler.cur_scale, float(since)])
        for name, parameter in self._trained.items():
            yield f"weight/{name}", self._gathered(parameter, None).cpu()
            for kind in () if weights_only else MOMENTS:
                yield f"{kind}/{name}", self._gathered(parameter, kind).cpu()

    def load_state(self, read: Read, steps: int) -> None:
        """Resume from a state (see Engine.load_state)."""
        self._set_moments_to_zero(steps)
        if self._precision == "float16":
            scaler = self._engine.optimizer.loss_scaler
            scaler.cur_scale, since = read(LOSS_SCALE).tolist()
            scaler.last_overflow_iter = scaler.cur_iter - 1 - int(since)
        self.load_weights(read)
        for name, parameter in self._trained.items():
            for kind in MOMENTS:
                moment = read(f"{kind}/{name}").to(self._device)
                if self._stage > 0:
                    safe_set_full_optimizer_state(parameter, moment, kind)
                else:
                    self._optimizer.state[parameter][kind].copy_(moment)

    def load_weights(self, read: Read) -> None:
        """Load weights (see Engine.load_weights)."""
        for name, parameter in self._trained.items():
            weight = read(f"weight/{name}").to(self._device)
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=self._stage == 3):
                if self._stage < 3 or rank() == 0:
                    parameter.data.copy_(weight)
            if self._stage > 0:
                safe_set_full_fp32_param(parameter, weight)

    def _gathered(self, parameter: torch.nn.Parameter, moment: str | None) -> torch.Tensor:
        """Return a trained parameter, or a moment of it, gathered from all processes."""
        if self._stage == 0:
            return parameter.detach() if moment is None else self._optimizer.state[parameter][moment]
        if moment is None:
            return cast(torch.Tensor, safe_get_full_fp32_param(parameter))
        return cast(torch.Tensor, safe_get_full_optimizer_state(parameter, moment))

    def _set_moments_to_zero(self, steps: int) -> None:
        """Create AdamW's state with zero moments, as at its first step, but after `steps` steps, so that it can be read
        and written before training."""
        zero = self._engine.optimizer
        if self._stage == 0:
            rows = [*self._trained.values()]
        else:
            rows = zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
        for row in rows:
            self._optimizer.state[row] = adamw_state(row, steps)
        if 0 < self._stage < 3:
            for group, row in zip(zero.bit16_groups, rows, strict=True):
                lazy_init_hp_params_optimizer_state(group, row, self._optimizer.state)


@contextmanager
def sharded_while_built(spec: ModelSpec, recipe: Recipe, layout: Layout) -> Iterator[None]:
    """Let transformers partition a pretrained model's weights over the processes while it loads them, where the layout
    partitions weights (ZeRO stage 3), so that no process ever stores all of them."""
    if layout.zero_stage < 3 or not isinstance(spec, PretrainedModel) or spec.quantise != "none":
        yield
        return
    from transformers.integrations import HfDeepSpeedConfig

    _join()
    config = HfDeepSpeedConfig(deepspeed_config(recipe, layout, _precision(recipe, this_device()), 0))
    try:
        yield
    finally:
        del config  # transformers uses it as long as the object exists


class _Loss(torch.nn.Module):
    """The module that DeepSpeed trains. DeepSpeed's hooks run around forward passes, so this one's forward pass takes a
    micro-batch and returns its part of the loss."""

    def __init__(self, model: torch.nn.Module, may_be_lean: bool) -> None:
        super().__init__()
        self._model, self._may_be_lean = model, may_be_lean

    def forward(self, batch: Batch, step: StepBatch, loss: Loss) -> torch.Tensor:
        """Return a micro-batch's part of the loss (see losses.py)."""
        return loss_part(self._model, batch, step, loss, self._may_be_lean)


def _join() -> None:
    """Select this process's GPU, and create a process group of this process alone, unless it is in a group."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        local_rank %= torch.cuda.device_count()  # some launchers show each process its own GPU only
        torch.cuda.set_device(local_rank)
    os.environ["LOCAL_RANK"] = str(local_rank)  # by which DeepSpeed selects a device
    if not distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        store: Any = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)


def _precision(recipe: Recipe, device: torch.device) -> Precision:
    if recipe.precision == "float16" and device.type == "cpu":
        raise TrialError('recipe.precision = "float16", but this process has no GPU, and CPUs do not train in it')
    names: dict[torch.dtype, Precision] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
    return names.get(computing_type(recipe.precision, device), "float32")


def _shape(parameter: Any) -> torch.Size:
    """Return the shape of the complete parameter, also where this process has only a part of it."""
    return torch.Size(parameter.ds_shape if is_zero_param(parameter) else parameter.shape)
