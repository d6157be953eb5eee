"""The `[budget]` section: the unit in which arms are equal, and how much each run may spend. Pure."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from showhow.methods.bench import Spent, Unit
from showhow.sections.faults import Fault, refuse
from showhow.sections.scalars import STRICT


class Budget(BaseModel):
    """What a run may spend. unit: `examples` (training examples seen), `tokens` (of questions and targets in training,
    and of replies that a method generates) or `flops` (operations of the model, 6 x parameters x tokens in training);
    amount: where every run ends. Evaluation is not counted. A study without this section ends its runs at the recipe's
    max_examples."""

    model_config = STRICT

    unit: Unit
    amount: Annotated[float, Field(gt=0.0)]

    @model_validator(mode="after")
    def _has_an_example(self) -> Self:
        if self.unit == "examples" and self.amount < 1:
            refuse([Fault("amount", f"got {self.amount:g}, must be at least 1, as unit is examples")])
        return self


@dataclass
class Allowance:
    """A run's budget, and what its stages have cost so far, by kind (training, replies, scores and teachers)."""

    budget: Budget
    by_kind: dict[str, Spent] = field(default_factory=dict)

    @property
    def unit(self) -> Unit:
        """The unit of the budget."""
        return self.budget.unit

    @property
    def amount(self) -> float:
        """The total that may be spent."""
        return self.budget.amount

    @property
    def spent(self) -> Spent:
        """The total spent so far."""
        return sum(self.by_kind.values(), Spent())

    @property
    def left(self) -> float:
        """What may still be spent, in the unit."""
        return self.amount - self.spent.of(self.unit)

    def room(self, wanted: float | None) -> tuple[float, float]:
        """Return the most that a training may spend, in the unit, and the most examples it may see. wanted: examples,
        below 1 a share of the total budget; None for what is left."""
        if wanted is not None and wanted < 1:
            return min(self.left, wanted * self.amount), math.inf
        return self.left, math.inf if wanted is None else wanted

    def charge(self, kind: str, cost: Spent) -> None:
        """Add the cost of a stage."""
        self.by_kind[kind] = self.by_kind.get(kind, Spent()) + cost
