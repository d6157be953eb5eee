"""The DeepSpeed engine: one model over several devices."""

import torch

from showhow.study.layout import Layout
from showhow.study.recipe import Recipe
from showhow.training.engine import PlainEngine


class DeepSpeedEngine(PlainEngine):
    """Not written yet."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, layout: Layout) -> None:
        raise NotImplementedError(layout)
