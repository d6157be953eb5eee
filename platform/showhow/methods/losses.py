"""The settings of training losses. How they are computed: training/losses.py. Pure."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CrossEntropy(BaseModel):
    """The mean negative log-likelihood of target tokens, in nats; tokens have the weight of their row. answer_weight:
    of an answer token, where an explanation token has 1. mean_over: with `rows` each row counts equally, whatever its
    number of tokens: the mean over rows of the mean over their tokens."""

    model_config = _STRICT

    kind: Literal["cross_entropy"] = "cross_entropy"
    answer_weight: Annotated[float, Field(gt=0.0)] = 1.0
    mean_over: Literal["tokens", "rows"] = "tokens"


class Mixup(BaseModel):
    """Cross-entropy of all rows, plus mu times that of mixed pairs of rows (SFTMix, arXiv 2410.05248). Half of each
    batch are rows of the first part of a mix, half of the second, and each is paired with one of the other half. Logits
    and one-hot targets of a pair are mixed, response token by response token up to the shorter length, by a share drawn
    from Beta(alpha, alpha) for each pair."""

    model_config = _STRICT

    kind: Literal["mixup"] = "mixup"
    alpha: Annotated[float, Field(gt=0.0)] = 0.5
    mu: Annotated[float, Field(ge=0.0)] = 0.2


Loss = CrossEntropy | Mixup
