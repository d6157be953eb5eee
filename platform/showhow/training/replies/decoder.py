"""The protocol of decoders, which write replies."""

from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Decoder(Protocol):
    """Reads the prompts of a batch, then takes one token per row at a time. Computes on the model's device, in
    autocast's type if it is on, else in the type of the weights."""

    device: torch.device
    pads_on_the_left: bool

    def begin(
        self, tokens: Int64[Tensor, "batch prompt"], mask: Int64[Tensor, "batch prompt"]
    ) -> Float[Tensor, "batch vocabulary"]:
        """Drop the last batch, read prompts (mask is 0 on padding), and return the logits of the next token."""

    def advance(self, following: Int64[Tensor, " batch"]) -> Float[Tensor, "batch vocabulary"]:
        """Take the next token of each row and return the logits of the one after it."""

    def keep(self, rows: Int64[Tensor, " kept"]) -> None:
        """Drop all rows of the batch but these."""
