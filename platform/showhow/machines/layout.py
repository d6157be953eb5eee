"""How a run uses devices: how many, how much of the model each stores, how much is computed at once. Pure.

A layout changes no result beyond rounding, so a study may continue with another one.
"""

from typing import Any

from pydantic import BaseModel

from showhow.sections.recipe import Recipe
from showhow.sections.resources import Offload, ZeroStage
from showhow.sections.scalars import STRICT, Positive


class Layout(BaseModel):
    """The layout of one run.

    micro_batch_size: most examples in one device's forward pass. zero_stage: what is partitioned over the devices
    instead of copied to each: 1 the optimizer's state, 2 also gradients, 3 also weights (Rajbhandari et al., arXiv
    1910.02054). deepspeed: the user's own settings, which override those derived from the other fields. asked_at_once:
    the batch size of replies (None: as the study sets it)."""

    model_config = STRICT

    devices: Positive = 1
    micro_batch_size: Positive
    recompute_activations: bool = False
    zero_stage: ZeroStage = 0
    offload_optimizer: Offload = "none"
    offload_parameters: Offload = "none"
    nvme_path: str | None = None
    deepspeed: dict[str, Any] | None = None
    asked_at_once: Positive | None = None

    @property
    def needs_deepspeed(self) -> bool:
        """True for a layout that a single process of plain torch cannot provide."""
        offloads = self.offload_optimizer != "none" or self.offload_parameters != "none"
        return self.devices > 1 or self.zero_stage > 0 or offloads or self.deepspeed is not None


def next_rung(
    layout: Layout, recipe: Recipe, asked_at_once: int | None = None, highest_stage: ZeroStage = 3
) -> Layout | None:
    """Return the next layout that needs less memory, or None at the end of the ladder.

    asked_at_once: the batch size of replies, where writing replies and not training ran out of memory: it is halved,
    and at 1 only a higher ZeRO stage can help. highest_stage: the highest ZeRO stage that the model allows.

    Micro-batches are halved first (to the next number that divides a device's share), as that costs least. Then
    activations are recomputed, which takes a third more arithmetic. Then several devices partition more, by the next
    ZeRO stage. One device has no other to partition over, and only the user can say where its optimizer's state could
    be offloaded (`sharding.offload_optimizer`). What the user's own DeepSpeed settings fix is not changed."""
    if asked_at_once is not None and asked_at_once > 1:
        return layout.model_copy(update={"asked_at_once": asked_at_once // 2})
    own = layout.deepspeed or {}
    rung = _less_at_once(layout, recipe.batch_size // layout.devices, own) if asked_at_once is None else None
    if rung is None and layout.devices > 1 and layout.zero_stage < highest_stage and "zero_optimization" not in own:
        return layout.model_copy(update={"zero_stage": layout.zero_stage + 1})
    return rung


def _less_at_once(layout: Layout, share: int, own: dict[str, Any]) -> Layout | None:
    if layout.micro_batch_size > 1 and "train_micro_batch_size_per_gpu" not in own:
        half = layout.micro_batch_size // 2
        fitting = next(size for size in range(half, 0, -1) if share % size == 0)
        return layout.model_copy(update={"micro_batch_size": fitting})
    if not layout.recompute_activations:
        return layout.model_copy(update={"recompute_activations": True})
    return None
