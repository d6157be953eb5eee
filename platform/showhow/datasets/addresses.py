"""How datasets that are made of others are addressed: by operation, version, settings and inputs; of a function by its
name and all that is bound to it. Pure."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from showhow.datasets.manifest import Derivation
from showhow.errors import TrialError
from showhow.fingerprint import Json, fingerprint


def address_of(derivation: Derivation) -> str:
    """Return the address of the dataset that a derivation makes: 16 hexadecimal digits."""
    return fingerprint(derivation.model_dump(mode="json"))


def name_of(function: Callable[..., Any]) -> str:
    """Return a function's place: module and name; of a partial one that of the function inside."""
    inner = function.func if isinstance(function, functools.partial) else function
    return f"{inner.__module__}.{inner.__qualname__}"


def settings_of(function: Callable[..., Any]) -> dict[str, Json]:
    """Return what names a function: its place, the settings of the method that it belongs to, and what is bound to it.

    Raises TrialError where it depends on something that its name does not tell, so that two of them would have one
    address: variables of a function around it, or an object that is no method or task."""
    settings: dict[str, Json] = {}
    inner = function
    if isinstance(function, functools.partial):
        settings["bound"] = [*map(_json, function.args), {name: _json(one) for name, one in function.keywords.items()}]
        inner = function.func
    if not inspect.isroutine(inner):
        raise TrialError(f"{inner!r} is no plain function, so it cannot be addressed; write a function or a method")
    owner = getattr(inner, "__self__", None)
    if isinstance(owner, BaseModel):
        settings["method"] = owner.model_dump(mode="json")
    elif inspect.ismethod(inner) and not isinstance(owner, type):
        raise TrialError(f"{name_of(inner)} belongs to {owner!r}; only a method, a task or a loss can be addressed")
    if captured := inspect.getclosurevars(inner).nonlocals if inspect.isfunction(inner) else {}:
        raise TrialError(
            f"{name_of(inner)} uses {', '.join(captured)} of the function around it, which its address does not tell; "
            "bind values with functools.partial, or make it a method of the class"
        )
    return {"function": name_of(function), **settings}


def _json(value: Any) -> Json:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TrialError(f"a function is bound to {value!r}; bind numbers, texts or a method, so that it can be addressed")
