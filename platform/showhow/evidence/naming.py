"""Names arms in sentences, by what is compared: explanations, methods, adapters, combinations. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from showhow.evidence.result import ArmRow, StudyResult
from showhow.evidence.settings import axis_in_words, values_in_words
from showhow.evidence.wording import listed
from showhow.study.variants import EXPLANATION
from showhow.tasks.explain import Level

# Axes whose values are clear without the name of the axis; for others it is added.
_KINDS = {"method": "methods", "adapter": "adapters", "model": "models", "model.name": "models", "arm": "arms"}
_PRONOUNS = ("none", "all", "both", "any")  # as arms they are quoted, or "none does better" says the opposite
_DIGITS = 2  # significant digits in which equal costs agree


@dataclass(frozen=True)
class Naming:
    """The words for the rows of one setting, of a study that compares the axes `by`."""

    rows: tuple[ArmRow, ...]
    by: tuple[str, ...]

    @property
    def are_levels(self) -> bool:
        """True where explanations alone are compared."""
        return self.by == (EXPLANATION,)

    @property
    def noun(self) -> str:
        """`explanation`, `method`, `arm`: the noun in `the cheapest arm`."""
        return "explanation" if self.are_levels else self.one

    @property
    def subject(self) -> str:
        """What the study is about, in the plural."""
        return "explanations" if self.are_levels else f"the {self.several}"

    @property
    def one(self) -> str:
        """A row's noun."""
        return "level" if self.are_levels else self.several.removesuffix("s")

    @property
    def several(self) -> str:
        """Its plural."""
        if self.are_levels:
            return "levels"
        return _KINDS.get(self.by[0], "arms") if len(self.by) == 1 else "arms"

    def is_bare(self, row: ArmRow) -> bool:
        """True where explanations alone are compared, and this one is none."""
        return self.are_levels and row.arm == Level.NONE.value

    def bare(self, row: ArmRow) -> str:
        """Return an arm's name: `medium`, `mixup`, `train examples 2,000`; in quotes where it contains a comma
        (`"mixup, long"`)."""
        axis = self.by[0]
        if len(self.by) > 1 or axis not in row.values:
            return f'"{row.arm}"' if ", " in row.arm or row.arm in _PRONOUNS else row.arm
        value = values_in_words(axis, [other.values.get(axis) for other in self.rows])[self.rows.index(row)]
        if axis == "adapter" and value == "none":
            return "no adapter"
        if axis in _KINDS and value in _PRONOUNS:
            return f'"{value}"'
        return value if axis == EXPLANATION or axis in _KINDS else f"{axis_in_words(axis)} {value}"

    def of(self, row: ArmRow) -> str:
        """Return an arm's name, marked if it is a control."""
        name = self.bare(row)
        if not row.is_control:
            return name
        return f"the {name}" if "control" in name else f"the {name} control"

    def listed(self, rows: Sequence[ArmRow], last: str) -> str:
        """Return `medium, long and the filler control`."""
        return listed([self.of(row) for row in rows], last)

    def in_full(self, rows: Sequence[ArmRow], last: str) -> str:
        """Return `medium or long explanations`, or the bare names where one is not an explanation."""
        names = self.listed(rows, last)
        explained = self.are_levels and not any(row.is_control or self.is_bare(row) for row in rows)
        return f"{names} explanations" if explained else names

    def cheapest(self, rows: Sequence[ArmRow]) -> ArmRow | None:
        """Return the cheapest of some arms; None where costs are unknown or, unless they are explanations, equal, as
        under a budget."""
        if self.are_levels:
            return min(rows, key=self.cost)
        is_known = any(self._costs_known(name) for name in ("flops", "tokens", "tokens_per_reply"))
        costs = sorted(self.cost(row) for row in rows)
        is_one = len(costs) == 1 or costs[0] != costs[1]
        return min(rows, key=self.cost) if is_known and is_one else None

    def cost(self, row: ArmRow) -> tuple[float, ...]:
        """Return an arm's cost as a sort key. For explanations it is the tokens of a reply, which every answer costs;
        for other arms what training spent, in FLOPs or else in tokens, then the tokens of a reply."""
        per_reply = float("inf") if row.tokens_per_reply is None else row.tokens_per_reply
        if self.are_levels:
            return (per_reply,)
        spent = row.flops if self._costs_known("flops") else row.tokens if self._costs_known("tokens") else None
        return (float(f"{spent or 0.0:.{_DIGITS}g}"), per_reply)

    def _costs_known(self, name: str) -> bool:
        return all(getattr(row, name) is not None for row in self.rows if row.accuracy is not None)


def names_of(result: StudyResult) -> Naming:
    """Return the words for a result of one setting."""
    return Naming(result.rows, result.by)


def capital(sentence: str) -> str:
    """Return a sentence with a capital letter at its beginning."""
    return sentence[0].upper() + sentence[1:]
