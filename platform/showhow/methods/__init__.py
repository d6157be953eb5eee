"""The catalogue of methods: a new one is a file in this folder and a line in `METHODS`, or a registered class."""

from typing import Annotated

from showhow.kinds import ByKind, Catalogue
from showhow.methods.base import Method
from showhow.methods.plain import Plain
from showhow.methods.sftmix import SftMix
from showhow.methods.step_by_step import StepByStep

METHODS: dict[str, type[Method]] = {"plain": Plain, "step_by_step": StepByStep, "sftmix": SftMix}
METHOD_KINDS: Catalogue[Method] = Catalogue(Method, METHODS, "showhow.methods", ("run",))
AnyMethod = Annotated[Method, ByKind(METHOD_KINDS)]
AnyMethods = Annotated[Method | dict[str, Method], ByKind(METHOD_KINDS, are_named=True)]
