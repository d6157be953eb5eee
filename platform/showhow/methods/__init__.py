"""The catalogue of methods: a new one is a file beside this one and a line in `METHODS`."""

from typing import Annotated

from pydantic import Field

from showhow.methods.base import Method
from showhow.methods.plain import Plain
from showhow.methods.sftmix import SftMix
from showhow.methods.step_by_step import StepByStep

METHODS: dict[str, type[Method]] = {"plain": Plain, "step_by_step": StepByStep, "sftmix": SftMix}
AnyMethod = Annotated[Plain | StepByStep | SftMix, Field(discriminator="kind")]
