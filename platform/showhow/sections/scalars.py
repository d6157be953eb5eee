"""The values that settings have: numbers with bounds, and what an axis of a search may set. Pure."""

import json
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _one_value(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Say what a value may be in one sentence, and not one for each member of the union."""
    try:
        return handler(value)
    except ValidationError:
        raise ValueError(f"got {json.dumps(value, default=str)}, must be a number, text, true or false") from None


Scalar = Annotated[bool | int | float | str, WrapValidator(_one_value)]
