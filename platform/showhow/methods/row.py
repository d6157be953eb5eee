"""A row of data: a training example, or a question for evaluation. Pure."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

Column = bool | int | float | str
MATCHED = "matched"  # the column whose text has as many tokens as the target of the control `filler`


@dataclass(frozen=True)
class Row:
    """A training example, or a question for evaluation.

    question: its identity, for splits and duplicates; prompt: what the model reads; target: what it should write;
    answer: the right one, as text; explanation: the text before the answer in the target of a problem, or empty;
    weight: of the row's loss; part: a name for losses and methods to use; columns: further values, such as the `reply`
    and the `nll` that stages add."""

    question: str
    prompt: str
    target: str
    answer: str
    explanation: str = ""
    weight: float = 1.0
    part: str = ""
    columns: Mapping[str, Column | None] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Self:
        """Return the row with some fields changed; other names are columns."""
        own = {name for name in changes if name in _FIELDS}
        columns = self.columns
        if "target" in own and changes["target"] != self.target:  # `matched` belongs to the old one
            columns = {name: value for name, value in columns.items() if name != MATCHED}
        columns = {**columns, **{name: value for name, value in changes.items() if name not in own}}
        return dataclasses.replace(self, **{name: changes[name] for name in own}, columns=columns)

    def value(self, name: str) -> Column | None:
        """Return a field or a column by its name; None where the row has neither."""
        return getattr(self, name) if name in _FIELDS else self.columns.get(name)


_FIELDS = ("question", "prompt", "target", "answer", "explanation", "weight", "part")
