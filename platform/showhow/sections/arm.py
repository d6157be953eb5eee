"""An arm: what a study compares. Pure."""

from pydantic import BaseModel

from showhow.sections.scalars import STRICT, Scalar


class Arm(BaseModel):
    """One of the things that a study compares: a row of its table. values: of the axes that it compares by, in the
    order of `[compare] by`; is_control: it is there to be compared with, and never recommended."""

    model_config = STRICT

    name: str
    values: dict[str, Scalar]
    is_control: bool = False
