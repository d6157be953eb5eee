"""Formats numbers and lists for people, in sentences, tables and pictures. Pure."""

from collections.abc import Sequence
from itertools import pairwise

from pydantic import JsonValue

NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ABSENT = "-"


def number_word(count: int) -> str:
    """Return `three` for 3; figures above twelve."""
    return NUMBER_WORDS[count] if 0 <= count < len(NUMBER_WORDS) else f"{count:,}"


def counted(count: int, noun: str) -> str:
    """Return `1 run` or `1,200 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def with_control(name: str, is_control: bool) -> str:
    """Return `chance (control)` for a control; a name with `control` in it is unchanged."""
    return f"{name} (control)" if is_control and "control" not in name else name


def unit_in_words(unit: str) -> str:
    """Return a budget's unit as people write it: `FLOPs` for `flops`."""
    return "FLOPs" if unit == "flops" else unit


def share(value: float | None) -> str:
    """Return a share with two decimals."""
    return ABSENT if value is None else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Return `8 s`, `4 min 12 s` or `2 h 5 min`."""
    total = round(seconds)
    for size, unit, smaller, smaller_unit in ((3600, "h", 60, "min"), (60, "min", 1, "s")):
        if total >= size:
            rest = total % size // smaller
            return f"{total // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{total} s"


def param(value: JsonValue) -> str:
    """Return a param's value: `1.2e-3` for small and large real numbers, `2,000` for whole ones, text as it is."""
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no" if value is False else ABSENT
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _real(value)
    if isinstance(value, list):
        return ", ".join(param(part) for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {param(part)}" for key, part in value.items())
    return value


def _real(value: float) -> str:
    if value == 0 or 0.01 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def varying(points: Sequence[dict[str, JsonValue]]) -> tuple[str, ...]:
    """Return the params that are not the same at all points, in order of first appearance."""
    names = dict.fromkeys(name for point in points for name in point)
    return tuple(name for name in names if any(a.get(name) != b.get(name) for a, b in pairwise(points)))
