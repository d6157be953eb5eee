"""How a run is laid over its devices: how many, how much of the model each holds, how much is computed at once. Pure.

A layout changes no result beyond rounding, so a study may go on with another one.
"""

from typing import Any

from pydantic import BaseModel

from showhow.study.recipe import STRICT, Positive, Recipe
from showhow.study.sections import Offload, Resources, Sharding, ZeroStage


class Layout(BaseModel):
    """The layout of one run. micro_batch_size: examples in one device's forward pass at most. zero_stage: what the
    devices share out rather than hold each: 1 the optimizer's state, 2 gradients too, 3 weights too (Rajbhandari et
    al., arXiv 1910.02054). deepspeed: the user's own settings, which stand above what is made of the others."""

    model_config = STRICT

    devices: Positive = 1
    micro_batch_size: Positive
    recompute_activations: bool = False
    zero_stage: ZeroStage = 0
    offload_optimizer: Offload = "none"
    offload_parameters: Offload = "none"
    nvme_path: str | None = None
    deepspeed: dict[str, Any] | None = None

    @property
    def needs_deepspeed(self) -> bool:
        """True for what a single process of plain torch cannot do."""
        offloads = self.offload_optimizer != "none" or self.offload_parameters != "none"
        return self.devices > 1 or self.zero_stage > 0 or offloads or self.deepspeed is not None


def layout_of(recipe: Recipe, resources: Resources, sharding: Sharding) -> Layout:
    """Return the layout that a study asks for."""
    devices = 1 if resources.devices_per_trial == "auto" else resources.devices_per_trial
    share = recipe.batch_size // devices
    return Layout(
        devices=devices,
        micro_batch_size=min(recipe.micro_batch_size or share, share),
        recompute_activations=sharding.recompute_activations,
        zero_stage=0 if sharding.zero_stage == "auto" else sharding.zero_stage,
        offload_optimizer=sharding.offload_optimizer,
        offload_parameters=sharding.offload_parameters,
        nvme_path=sharding.nvme_path,
        deepspeed=sharding.deepspeed,
    )
