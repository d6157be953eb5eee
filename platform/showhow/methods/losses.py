"""What training lowers, as settings. How they are computed: training/losses.py. Pure."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CrossEntropy(BaseModel):
    """The mean over target tokens of minus the logarithm of the probability of the right one, in nats; a row's weight
    is that of its tokens. answer_weight: of a token of the answer, where one of the explanation has 1. mean_over:
    `rows` lets each row count alike, however many tokens it has: the mean over rows of the mean over their tokens."""

    model_config = _STRICT

    kind: Literal["cross_entropy"] = "cross_entropy"
    answer_weight: Annotated[float, Field(gt=0.0)] = 1.0
    mean_over: Literal["tokens", "rows"] = "tokens"


class Mixup(BaseModel):
    """Cross-entropy of all rows, and mu times that of pairs of rows mixed (SFTMix, arXiv 2410.05248). Half of each
    batch are rows of the first part of a mix, half of the second, and each is paired with one of the other half: of the
    two, logits and one-hot targets, response token beside response token as far as the shorter goes, are mixed by a
    share drawn from Beta(alpha, alpha) for each pair."""

    model_config = _STRICT

    kind: Literal["mixup"] = "mixup"
    alpha: Annotated[float, Field(gt=0.0)] = 0.5
    mu: Annotated[float, Field(ge=0.0)] = 0.2


Loss = CrossEntropy | Mixup
