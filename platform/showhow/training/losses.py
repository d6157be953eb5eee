"""The losses of methods/losses.py, computed from a model's logits.

Each function returns a micro-batch's part of a step's loss: the parts of all micro-batches of all processes add up to
it.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from showhow.methods.losses import Loss, Mixup
from showhow.training.batches import IGNORED, Batch, StepBatch
from showhow.training.cpu import lean_logits, lean_loss
from showhow.training.model import is_seq2seq

_FOR_THE_LOSS = ("labels", "weights", "shares")  # tensors that models do not take


def loss_part(
    model: torch.nn.Module, batch: Batch, step: StepBatch, loss: Loss, may_be_lean: bool = True
) -> Float[Tensor, ""]:
    """Return a micro-batch's part of a step's loss, in nats a target token. may_be_lean: weights can be read outside
    the model's own forward pass."""
    if isinstance(loss, Mixup) and loss.mu > 0:
        logits, labels = target_logits(model, batch, may_be_lean)
        plain = cross_entropy(logits, labels, reduction="none")
        counted = plain.sum() if "weights" not in batch else (plain * _target_weights(model, batch)).sum()
        return counted / step.targets + loss.mu * mixup_loss(logits, labels, batch) / step.mixed
    if "weights" in batch:
        logits, labels = target_logits(model, batch, may_be_lean)
        losses = cross_entropy(logits, labels, reduction="none")
        return (losses * _target_weights(model, batch)).sum() / step.targets
    return response_loss(model, batch, may_be_lean) / step.targets


def response_loss(model: torch.nn.Module, batch: Batch, may_be_lean: bool = True) -> Float[Tensor, ""]:
    """Return the summed cross-entropy (nats) over the target tokens of a batch, computed in float32."""
    lean = lean_loss(model, batch, _cpu_type()) if may_be_lean else None
    if lean is not None:
        return lean
    logits, labels = target_logits(model, batch, may_be_lean=False)
    return cross_entropy(logits, labels, reduction="sum")


def mixup_loss(
    logits: Float[Tensor, "targets vocabulary"], labels: Int64[Tensor, " targets"], batch: Batch
) -> Float[Tensor, ""]:
    """Return the summed cross-entropy of mixed pairs (arXiv 2410.05248, section 3): rows 0 and 1, 2 and 3, ... of the
    batch, aligned by target token, up to the end of the shorter. The output matrix is linear, so logits are mixed
    where the paper mixes hidden states."""
    lengths = (batch["labels"] != IGNORED).sum(dim=1)
    starts = torch.cumsum(lengths, 0) - lengths
    shorter = torch.minimum(lengths[0::2], lengths[1::2])
    inside = torch.arange(int(shorter.sum()), device=logits.device)
    inside = inside - torch.repeat_interleave(torch.cumsum(shorter, 0) - shorter, shorter)
    first = torch.repeat_interleave(starts[0::2], shorter) + inside
    second = torch.repeat_interleave(starts[1::2], shorter) + inside
    share = torch.repeat_interleave(batch["shares"].to(logits.device), shorter)
    mixed = torch.log_softmax(share[:, None] * logits[first] + (1 - share[:, None]) * logits[second], dim=-1)
    right, other = (mixed.gather(1, labels[rows, None])[:, 0] for rows in (first, second))
    return -(share * right + (1 - share) * other).sum()


def target_logits(
    model: torch.nn.Module, batch: Batch, may_be_lean: bool = True
) -> tuple[Float[Tensor, "targets vocabulary"], Int64[Tensor, " targets"]]:
    """Return the logits of the target tokens of a batch in float32, row by row, and the tokens' ids.

    A causal model predicts token i from those before it, so its labels are shifted by one; a seq2seq model's are not,
    as the model shifts its decoder input itself."""
    lean = lean_logits(model, _cpu_type()) if may_be_lean else None
    logits: Tensor
    if lean is not None:
        with torch.autocast("cpu", enabled=False):
            logits, labels = lean(model, batch, _cpu_type())
    else:
        labels = batch["labels"]
        inputs: dict[str, Any] = {name: tensor for name, tensor in batch.items() if name not in _FOR_THE_LOSS}
        if is_seq2seq(model):
            logits = model(**inputs, labels=labels, use_cache=False).logits
        else:
            # The vectors of prompt tuning precede the tokens.
            logits = model(**inputs, use_cache=False).logits[:, -labels.shape[1] : -1]
            labels = labels[:, 1:]
    chosen = labels != IGNORED
    return logits[chosen].float(), labels[chosen]


def _target_weights(model: torch.nn.Module, batch: Batch) -> Float[Tensor, " targets"]:
    begin = 0 if is_seq2seq(model) else 1
    return batch["weights"][:, begin:][batch["labels"][:, begin:] != IGNORED]


def _cpu_type() -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
