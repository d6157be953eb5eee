"""A row: a line of training data, or a question that is asked. Pure."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

Column = bool | int | float | str
MATCHED = "matched"  # the column with the text whose length in tokens the target of the control `filler` has


@dataclass(frozen=True)
class Row:
    """One line of training data, or a question that is asked.

    question: its identity, by which splits and duplicates go; prompt: what the model reads; target: what it is to
    write; answer: the right one, as text; explanation: what stands before the answer in the target of a problem, empty
    where nothing does; weight: of the row's loss; part: a name that losses and methods may go by; columns: whatever
    else is known of it, such as the `reply` and the `nll` that stages add."""

    question: str
    prompt: str
    target: str
    answer: str
    explanation: str = ""
    weight: float = 1.0
    part: str = ""
    columns: Mapping[str, Column | None] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Self:
        """Return the row with some fields changed; names that are no fields of a row are columns."""
        own = {name for name in changes if name in _FIELDS}
        columns = self.columns
        if "target" in own and changes["target"] != self.target:  # `matched` is of the old one
            columns = {name: value for name, value in columns.items() if name != MATCHED}
        columns = {**columns, **{name: value for name, value in changes.items() if name not in own}}
        return dataclasses.replace(self, **{name: changes[name] for name in own}, columns=columns)

    def value(self, name: str) -> Column | None:
        """Return a field or a column by its name; None where the row has none of it."""
        return getattr(self, name) if name in _FIELDS else self.columns.get(name)


_FIELDS = ("question", "prompt", "target", "answer", "explanation", "weight", "part")
