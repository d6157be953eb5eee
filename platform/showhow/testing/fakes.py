"""Data and models in memory: rows with an address; a model that is only a list of its training data."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from showhow.datasets.examples import BLOCK_EXAMPLES, draw_block
from showhow.datasets.rows import explanation_of
from showhow.errors import UserError
from showhow.methods.row import MATCHED, Row
from showhow.sections.dataset_spec import DatasetSpec
from showhow.tasks.explain import Level, symbols

_LEAST_DRAWN = 256  # in a round, as for a real dataset
_MOST_ROUNDS = 20


@dataclass(frozen=True)
class FakeData:
    """Rows, their address, and the explanation level of their targets. See methods.bench.Data."""

    address: str
    all_rows: tuple[Row, ...]
    level: Level

    def __len__(self) -> int:
        return len(self.all_rows)

    def rows(self) -> Iterator[Row]:
        """Yield the rows in order."""
        return iter(self.all_rows)

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """The tokens of each row's prompt and target with its end: symbols, as for models trained from scratch."""
        return tuple(tokens_of(row.prompt) + tokens_of(row.target) + 1 for row in self.all_rows)


@dataclass(frozen=True)
class FakeModel:
    """A model as an address. trained_on: the addresses of the data that it has seen, in order."""

    address: str
    trained_on: tuple[str, ...] = ()


def tokens_of(text: str) -> int:
    """Count the tokens of a text."""
    return len(symbols(text))


def drawn(spec: DatasetSpec) -> FakeData:
    """Draw a task's problems as for a real dataset, each question once. Raises UserError where there are too few
    different ones."""
    found: dict[str, Row] = {}
    for block in range(_MOST_ROUNDS):
        examples, _ = draw_block(spec, block, min(BLOCK_EXAMPLES, max(spec.examples, _LEAST_DRAWN)))
        for one in examples:
            row = Row(
                question=one.question,
                prompt=one.question,
                target=one.target,
                answer=one.answer,
                explanation=explanation_of(one.target, one.answer, spec.task.text_format),
                columns={} if one.matched is None else {MATCHED: one.matched},
            )
            found.setdefault(one.question, row)
        if len(found) >= spec.examples:
            return FakeData(spec.fingerprint, tuple(found.values())[: spec.examples], spec.level)
    raise UserError(
        f"the {spec.split} split asks for {spec.examples:,} different questions, and the task yielded {len(found):,} "
        f"({spec.task!r}); give the bench fewer examples or a larger task"
    )
