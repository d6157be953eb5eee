"""The `[budget]` section: in what arms are equal, and how much each run may spend. Pure."""

from typing import Annotated

from pydantic import BaseModel, Field

from showhow.methods.bench import Unit
from showhow.sections.scalars import STRICT


class Budget(BaseModel):
    """What a run may spend. unit: `examples` (training examples seen), `tokens` (of questions and targets in training,
    and of replies that a method has written) or `flops` (operations of the model, 6 x parameters x tokens in training);
    amount: where every run ends. Evaluation is not counted. A study without this section ends its runs at the recipe's
    max_examples."""

    model_config = STRICT

    unit: Unit
    amount: Annotated[float, Field(gt=0.0)]
