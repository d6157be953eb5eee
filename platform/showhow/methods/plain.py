"""Plain fine-tuning: question in, explanation and answer out."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from showhow.methods.base import Method
from showhow.methods.bench import Bench, Data, Model
from showhow.methods.losses import CrossEntropy


class Plain(Method):
    """Train on explained problems, the loss on the response only.

    answer_weight: of an answer token in the loss, where an explanation token has 1 (with 1 the answer is half of the
    loss without explanation, and a thirtieth of it after thirty tokens of steps)."""

    kind: Literal["plain"] = "plain"
    answer_weight: Annotated[float, Field(gt=0.0)] = 1.0

    stages: ClassVar[tuple[str, ...]] = ("train on the explained problems",)

    def run(self, bench: Bench, prepared: Data | None) -> Model:
        """See Method."""
        data = prepared if prepared is not None else bench.problems()
        return bench.train(bench.start(), data, loss=CrossEntropy(answer_weight=self.answer_weight))[-1]
