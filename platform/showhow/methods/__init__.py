"""The catalogue of methods: a new one is a file beside this one and a line in `METHODS`."""

from showhow.methods.base import Method
from showhow.methods.plain import Plain

METHODS: dict[str, type[Method]] = {"plain": Plain}
AnyMethod = Plain
