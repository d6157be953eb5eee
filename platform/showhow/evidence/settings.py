"""What a study compares beside the explanation: the values of its grids over the model, the task or the data. Pure.

A recipe is tuned, so a level is shown by its best one. A model's size, a task's length or an amount of data is no such
choice: each is a question of its own, and a level is shown at each.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import PurePath

from pydantic import JsonValue

from showhow.evidence.wording import param
from showhow.study.search_space import Grid, SearchSpace

Setting = dict[str, JsonValue]

_COMPARED = ("model.", "task.", "data.")
_MODEL = "model.name"


def settings_of(search: SearchSpace) -> tuple[Setting, ...]:
    """Return the settings that are compared, in the order of the study file; none where there is no such grid, nor
    where the search chooses among its values (optuna)."""
    grids = {
        name: axis.grid
        for name, axis in search.axes.items()
        if name.startswith(_COMPARED) and isinstance(axis, Grid) and len(axis.grid) > 1
    }
    if not grids or search.algorithm != "random":
        return ()
    return tuple(dict(zip(grids, values, strict=True)) for values in product(*grids.values()))


def settings_in_words(settings: Sequence[Setting]) -> list[str]:
    """Return `layers 2, heads 4` for each of some settings of the same axes."""
    columns = [
        [f"{axis_in_words(axis)} {value}" for value in values_in_words(axis, [setting[axis] for setting in settings])]
        for axis in (settings[0] if settings else ())
    ]
    return [", ".join(parts) for parts in zip(*columns, strict=True)]


def axis_in_words(axis: str) -> str:
    """Return `layers` for `model.layers`, and `model` for `model.name`."""
    return "model" if axis == _MODEL else axis.rpartition(".")[2].replace("_", " ")


def values_in_words(axis: str, values: Sequence[JsonValue]) -> list[str]:
    """Return values of an axis as text: models without the folder or the owner that they are in, unless two would be
    called alike."""
    texts = [param(value) for value in values]
    short = {text: PurePath(text).name for text in texts} if axis == _MODEL else {}
    return [short[text] for text in texts] if len(set(short.values())) == len(set(texts)) else texts
