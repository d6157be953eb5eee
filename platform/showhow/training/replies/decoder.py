"""What writes replies: the protocol of a decoder."""

from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Decoder(Protocol):
    """Reads the prompts of a batch, then takes one token a row after another. Computes where the model is, in
    autocast's type if it is on, else in the model's own."""

    device: torch.device
    pads_on_the_left: bool

    def begin(
        self, tokens: Int64[Tensor, "batch prompt"], mask: Int64[Tensor, "batch prompt"]
    ) -> Float[Tensor, "batch vocabulary"]:
        """Forget the last batch, read prompts (mask is 0 on padding), and return the logits of what follows."""

    def advance(self, following: Int64[Tensor, " batch"]) -> Float[Tensor, "batch vocabulary"]:
        """Take the next token of every row and return the logits of the one after it."""

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Forget all rows of the batch but these."""
