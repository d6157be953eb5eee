"""The wording of ListOps steps. The choice of wording can matter more than its length, so it is a parameter.

Style "paper": medium is byte for byte that of the files of Ballout et al. (arXiv 2402.07543), and short follows the one
line of it that is public ("SUM, 3"). Of long only the beginning of the SUM sentence is public; the rest is ours, in the
same style. Style "symbols" is ours: the same content with as few symbols per step as possible.

A step is an `Application`: the operator, its numbers, their sum before the modulus, the result.
"""

from typing import Literal

from showhow.tasks.base import Wording
from showhow.tasks.listops.expression import OperatorName, middle

Style = Literal["paper", "symbols"]

_SPELT: dict[OperatorName, str] = {"MIN": "Min", "MAX": "Max", "MED": "MED", "SUM": "SUM"}
_SUPERLATIVES: dict[OperatorName, str] = {"MIN": "smallest", "MAX": "largest"}


def _paper_short(operator: OperatorName, _numbers: list[int], _total: int, value: int) -> str:
    return f"{_SPELT[operator]}, {value}"


def _paper_medium(operator: OperatorName, numbers: list[int], total: int, value: int) -> str:
    if operator == "SUM":
        return f"SUM, add {numbers}, sum is {total}, answer is {value}"
    if operator == "MED":
        return f"MED, sorted list, {sorted(numbers)}, MEDIAN is {value}"
    return f"{_SPELT[operator]}, {_SUPERLATIVES[operator]} number of {numbers} is {value}"


def _paper_long(operator: OperatorName, numbers: list[int], total: int, value: int) -> str:
    begun = f"{operator} operator so we have to"
    if operator == "SUM":
        return f"{begun} add the numbers [{_joined(numbers)}], sum is {total} so the answer is {value}"
    if operator == "MED":
        low, high = middle(numbers)
        return (
            f"{begun} sort the numbers [{_joined(numbers)}] and take the middle, sorted list is "
            f"[{_joined(sorted(numbers))}], middle is {low if len(numbers) % 2 else f'{low} and {high}'} "
            f"so the answer is {value}"
        )
    superlative = _SUPERLATIVES[operator]
    return (
        f"{begun} find the {superlative} of the numbers [{_joined(numbers)}], {superlative} is {value} "
        f"so the answer is {value}"
    )


def _symbols_short(_operator: OperatorName, _numbers: list[int], _total: int, value: int) -> str:
    return f"{value}"


def _symbols_medium(operator: OperatorName, numbers: list[int], _total: int, _value: int) -> str:
    return f"{operator} {_joined(numbers)}"


def _symbols_long(operator: OperatorName, numbers: list[int], total: int, value: int) -> str:
    between = f" > {total}" if operator == "SUM" else f" > {_joined(sorted(numbers))}" if operator == "MED" else ""
    return f"{operator} {_joined(numbers)}{between} = {value}"


def _joined(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))


WORDINGS: dict[Style, Wording] = {
    "paper": Wording(_paper_short, _paper_medium, _paper_long),
    "symbols": Wording(_symbols_short, _symbols_medium, _symbols_long),
}
