"""SFTMix (arXiv 2410.05248): mixes rows that a reference model is confident about with rows that it is not.

A reference model is trained plainly on a share of the budget and saved at some points. Each row's perplexity, the mean
over those models, measures their confidence; the rows are halved at the median. Then the model is trained from the
start on batches with as many rows from each half, by cross-entropy and by that of mixed pairs (losses.Mixup). The paper
states no number of checkpoints, and does not charge the reference to the method; here it is charged.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from showhow.methods.base import Method, Setup
from showhow.methods.bench import Bench, Data, Model
from showhow.methods.losses import Mixup
from showhow.methods.row import Row


class SftMix(Method):
    """Mix rows that a reference model is confident about with rows that it is not.

    alpha: how evenly pairs are mixed, by shares drawn from Beta(alpha, alpha); mu: weight of the loss on mixed pairs.
    checkpoints: number of saved references, whose mean perplexity halves the rows; reference_share: of the budget, for
    training the reference. halves: `random` is the control, which costs the same and halves the rows at random."""

    kind: Literal["sftmix"] = "sftmix"
    alpha: Annotated[float, Field(gt=0.0)] = 0.5
    mu: Annotated[float, Field(ge=0.0)] = 0.2
    checkpoints: Annotated[int, Field(ge=1, le=20)] = 3
    reference_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    halves: Literal["confidence", "random"] = "confidence"

    source: ClassVar[str] = "SFTMix, arXiv 2410.05248"
    stages: ClassVar[tuple[str, ...]] = (
        "train a reference plainly and save it at some points",
        "score every row with the saved models",
        "halve the rows by perplexity",
        "train on batches of both halves, with mixed pairs",
    )

    @property
    def is_control(self) -> bool:
        """True where the halves are random."""
        return self.halves == "random"

    def unfit(self, setup: Setup) -> Iterator[str]:
        """See Method."""
        if setup.batching == "packed":
            yield 'sftmix mixes rows in pairs, and recipe.batching = "packed" joins several in one; write "grouped"'
        if setup.batch_size % 2:
            yield f"sftmix pairs the rows of a batch, and recipe.batch_size = {setup.batch_size} is odd; make it even"
        elif setup.batch_size % (2 * setup.devices):
            of = f"recipe.batch_size = {setup.batch_size}, divided among {setup.devices} devices"
            yield f"sftmix pairs the rows of a batch, {of}; make it a multiple of {2 * setup.devices}"
        pays = None if setup.batches is None else int(setup.batches * self.reference_share)
        if pays is not None and pays < self.checkpoints:
            share = f"the share of {self.reference_share:g} of the budget pays for about {pays:,} batches"
            yield f"sftmix saves its reference at {self.checkpoints} points, and {share}; raise the budget or the share"

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        """See Method."""
        data = bench.problems() if prepared is None else prepared
        scored = self._scored(bench, data)
        sure, unsure = bench.split(scored, 2, by="perplexity" if self.halves == "confidence" else None)
        mixed = bench.mix({"confident": sure, "unconfident": unsure})
        return bench.train(bench.start(), mixed, loss=Mixup(alpha=self.alpha, mu=self.mu))[-1]

    def _scored(self, bench: Bench, data: Data) -> Data:
        references = bench.train(
            bench.start(), data, examples=self.reference_share, keep=self.checkpoints, watched=False
        )
        for number, reference in enumerate(references):
            data = bench.score(reference, data, column=f"nll_{number}")
        return bench.map(data, partial(_with_perplexity, models=len(references)), version=1)


def _with_perplexity(row: Row, models: int) -> list[Row]:
    """Add the mean perplexity of the target, exp of the mean nats a token, over the reference's checkpoints."""
    nats = [float(row.columns[f"nll_{number}"] or 0.0) for number in range(models)]
    return [row.with_(perplexity=sum(map(math.exp, nats)) / models)]
