"""The `[compare]` section: what a study compares, and in which settings. Pure."""

from typing import Annotated

from pydantic import BaseModel, Field, field_validator

from showhow.sections.scalars import FROM_LIST, STRICT

_Axes = Annotated[tuple[str, ...], FROM_LIST]


class Compare(BaseModel):
    """by: the axes of the search whose values are compared; each combination of values is an arm. within: axes at each
    of whose values arms are compared separately (settings); default: the grids over the model, the task and the data
    that are not in `by`. Every other axis is tuned: an arm is represented by its best trial."""

    model_config = STRICT

    by: Annotated[_Axes, Field(min_length=1)] = ("explanation",)
    within: _Axes | None = None

    @field_validator("by", "within")
    @classmethod
    def _named_once(cls, axes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        names = None if axes is None else tuple(axis.removeprefix("recipe.") for axis in axes)
        if names is not None and len(set(names)) < len(names):
            raise ValueError("an axis is named twice")
        return names
