"""How the steps of ListOps are worded: which wording it is can matter more than how long it is, so it is a parameter.

Style "paper": medium is byte for byte that of the files of Ballout et al. (arXiv 2402.07543), and short follows the one
line of it that is public ("SUM, 3"). Of long only the beginning of the SUM sentence is public; the rest is ours, made
alike. Style "symbols" is ours: as few symbols per step as say the same.
"""

from typing import Literal

from showhow.tasks.base import Step
from showhow.tasks.listops_expression import Application, OperatorName, middle

Style = Literal["paper", "symbols"]

# {value}: the result; {total}: the sum before the modulus; {numbers}, {ordered}: the arguments as written, and sorted;
# {listed}, {listed_ordered}: the same as Python lists; {middle}: what stands in the middle of the sorted numbers.
WORDINGS: dict[Style, dict[OperatorName, Step]] = {
    "paper": {
        "MIN": Step(
            short="Min, {value}",
            medium="Min, smallest number of {listed} is {value}",
            long="MIN operator so we have to find the smallest of the numbers [{numbers}], "
            "smallest is {value} so the answer is {value}",
        ),
        "MAX": Step(
            short="Max, {value}",
            medium="Max, largest number of {listed} is {value}",
            long="MAX operator so we have to find the largest of the numbers [{numbers}], "
            "largest is {value} so the answer is {value}",
        ),
        "MED": Step(
            short="MED, {value}",
            medium="MED, sorted list, {listed_ordered}, MEDIAN is {value}",
            long="MED operator so we have to sort the numbers [{numbers}] and take the middle, "
            "sorted list is [{ordered}], middle is {middle} so the answer is {value}",
        ),
        "SUM": Step(
            short="SUM, {value}",
            medium="SUM, add {listed}, sum is {total}, answer is {value}",
            long="SUM operator so we have to add the numbers [{numbers}], sum is {total} so the answer is {value}",
        ),
    },
    "symbols": {
        "MIN": Step(short="{value}", medium="MIN {numbers}", long="MIN {numbers} = {value}"),
        "MAX": Step(short="{value}", medium="MAX {numbers}", long="MAX {numbers} = {value}"),
        "MED": Step(short="{value}", medium="MED {numbers}", long="MED {numbers} > {ordered} = {value}"),
        "SUM": Step(short="{value}", medium="SUM {numbers}", long="SUM {numbers} > {total} = {value}"),
    },
}


def worded(application: Application, style: Style) -> Step:
    """Return the step that explains how an operator was worked out."""
    operator, numbers, total, value = application
    wording = WORDINGS[style][operator]
    ordered = sorted(numbers)
    low, high = middle(ordered)
    fields = {
        "value": value,
        "total": total,
        "numbers": " ".join(map(str, numbers)),
        "ordered": " ".join(map(str, ordered)),
        "listed": numbers,
        "listed_ordered": ordered,
        "middle": low if len(numbers) % 2 else f"{low} and {high}",
    }
    return Step(
        short=wording.short.format_map(fields),
        medium=wording.medium.format_map(fields),
        long=wording.long.format_map(fields),
    )
