"""The `[adapter]` section: what is trained in addition to a pretrained model with frozen weights. Pure."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from showhow.kinds import ByKind, Catalogue
from showhow.sections.scalars import STRICT, Positive, Share


class _LowRank(BaseModel):
    """Two low-rank matrices for each chosen linear layer; their product is added to its weight (Hu et al., LoRA, arXiv
    2106.09685).

    rank: their inner size; alpha: the product is scaled by alpha / rank; dropout: share of the layer's inputs dropped
    in training; targets: names of the layers, such as `q_proj` (empty: every linear layer but the output layer)."""

    model_config = STRICT

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    dropout: Share = 0.0
    targets: tuple[str, ...] = ()


class Lora(_LowRank):
    """LoRA as published."""

    kind: Literal["lora"]


class Dora(_LowRank):
    """A weight's magnitude and direction are learned separately, the latter by LoRA (Liu et al., arXiv 2402.09353)."""

    kind: Literal["dora"]


class RsLora(_LowRank):
    """LoRA scaled by alpha / sqrt(rank), so that large ranks learn too (Kalajdzievski, arXiv 2312.03732)."""

    kind: Literal["rslora"]


class PromptTuning(BaseModel):
    """Vectors put before every question; nothing else is trained (Lester et al., arXiv 2104.08691). tokens: how
    many."""

    model_config = STRICT

    kind: Literal["prompt"]
    tokens: Annotated[int, Field(ge=1, le=1000)] = 20


Adapter = Annotated[Lora | Dora | RsLora | PromptTuning, Field(discriminator="kind")]
ADAPTER_KINDS: Catalogue[BaseModel] = Catalogue(
    (Lora, Dora, RsLora, PromptTuning), {"lora": Lora, "dora": Dora, "rslora": RsLora, "prompt": PromptTuning}
)
Adapters = Annotated[Adapter | dict[str, Adapter], ByKind(ADAPTER_KINDS, are_named=True)]
