"""The values that settings have: numbers with bounds, and what an axis of a search may set. Pure."""

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _one_value(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Report what a value may be in one sentence, not in one per member of the union."""
    try:
        return handler(value)
    except ValidationError:
        raise ValueError(f"got {json.dumps(value, default=str)}, must be a number, text, true or false") from None


def _tuple_of(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# Sections of a study read from JSON are Python values when they are checked, and pydantic's strict mode then accepts no
# list for a tuple.
FROM_LIST = BeforeValidator(_tuple_of)
Scalar = Annotated[bool | int | float | str, WrapValidator(_one_value)]
