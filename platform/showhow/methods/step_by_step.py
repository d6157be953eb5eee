"""Distilling step by step (Hsieh et al., arXiv 2305.02301): label and rationale are two tasks of one model.

Each problem gives two rows with different prefixes: the target of one is the bare answer, that of the other is the
explanation without the answer. The loss is that of the first plus `rationale_weight` times that of the second, each the
mean over a row's tokens (section 3.2; the paper weighs both equally). In evaluation the model gets the label's prefix,
so its replies are as short as without explanation.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from showhow.methods.base import Method, Setup
from showhow.methods.bench import Bench, Data, Model
from showhow.methods.losses import CrossEntropy
from showhow.methods.row import Row
from showhow.tasks.explain import Level

LABEL, RATIONALE = "label", "rationale"
_PREFIXES = {LABEL: "[label] ", RATIONALE: "[rationale] "}


class StepByStep(Method):
    """Learn to answer and to explain as two tasks; in evaluation the model gives the bare answer.

    rationale_weight: of an explanation row, where an answer row has 1."""

    kind: Literal["step_by_step"] = "step_by_step"
    rationale_weight: Annotated[float, Field(gt=0.0)] = 1.0

    source: ClassVar[str] = "Hsieh et al. 2023, arXiv 2305.02301"
    stages: ClassVar[tuple[str, ...]] = (
        "make two rows per problem: its answer, and its explanation",
        "train on both, the mean over the tokens of each row",
    )
    texts: ClassVar[tuple[str, ...]] = tuple(_PREFIXES.values())

    def unfit(self, setup: Setup) -> Iterator[str]:
        """See Method."""
        if setup.level is Level.NONE:
            yield 'step_by_step learns from explanations, and the level "none" has none; compare it at another level'

    def asked(self, row: Row) -> Row:
        """Return the question after the label's prefix, with the bare answer as target."""
        return row.with_(prompt=_PREFIXES[LABEL] + row.prompt, target=row.answer, part=LABEL)

    def reads_as(self, level: Level) -> Level:  # noqa: ARG002 - for any level
        """Return `none`, for a bare answer."""
        return Level.NONE

    def both(self, row: Row) -> list[Row]:
        """Return a problem's two rows."""
        rationale = _PREFIXES[RATIONALE] + row.prompt
        weighted = row.with_(prompt=rationale, target=row.explanation, part=RATIONALE, weight=self.rationale_weight)
        return [self.asked(row), weighted]

    def prepare(self, bench: Bench) -> Data:
        """See Method."""
        return bench.map(bench.problems(), self.both, version=1)

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        """See Method."""
        data = self.prepare(bench) if prepared is None else prepared
        return bench.train(bench.start(), data, loss=CrossEntropy(mean_over="rows"))[-1]
