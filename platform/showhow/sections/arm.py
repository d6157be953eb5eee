"""An arm: what a study compares. Pure."""

from pydantic import BaseModel

from showhow.sections.scalars import STRICT, Scalar


class Arm(BaseModel):
    """One of the alternatives that a study compares: a row of its table. values: on the axes of `[compare] by`, in
    their order; is_control: it serves only for comparison, and is never recommended."""

    model_config = STRICT

    name: str
    values: dict[str, Scalar]
    is_control: bool = False
