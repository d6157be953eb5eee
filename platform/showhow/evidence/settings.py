"""Names the axes of a study and their values in sentences, tables and pictures. Pure."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from pydantic import JsonValue

from showhow.evidence.wording import param

if TYPE_CHECKING:
    from showhow.evidence.result import Setting  # takes 20 ms to import, of the half second of `check`

_MODEL = "model.name"


def settings_in_words(settings: Sequence["Setting"]) -> list[str]:
    """Return `layers 2, heads 4` for each of several settings of the same axes; "" for one without axes."""
    columns = [
        [f"{axis_in_words(axis)} {value}" for value in values_in_words(axis, [setting[axis] for setting in settings])]
        for axis in (settings[0] if settings else ())
    ]
    return [", ".join(parts) for parts in zip(*columns, strict=True)] if columns else [""] * len(settings)


def axis_in_words(axis: str) -> str:
    """Return `layers` for `model.layers`, and `model` for `model.name`."""
    return "model" if axis == _MODEL else axis.rpartition(".")[2].replace("_", " ")


def values_in_words(axis: str, values: Sequence[JsonValue]) -> list[str]:
    """Return values of an axis as text: models without their folder or owner, unless two names would then be
    equal."""
    texts = [param(value) for value in values]
    short = {text: PurePath(text).name for text in texts} if axis == _MODEL else {}
    return [short[text] for text in texts] if len(set(short.values())) == len(set(texts)) else texts
