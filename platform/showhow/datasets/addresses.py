"""The addresses of derived datasets: hashes of operation, version, settings and inputs. A function counts by its name
and bound values. Pure."""

import functools
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

from pydantic import BaseModel

from showhow.datasets.manifest import Derivation
from showhow.errors import TrialError
from showhow.fingerprint import Json, fingerprint


def address_of(derivation: Derivation) -> str:
    """Return the address of the dataset that a derivation makes: 16 hexadecimal digits."""
    return fingerprint(derivation.model_dump(mode="json"))


def name_of(function: Callable[..., Any]) -> str:
    """Return a function's module and name; for a partial, those of its function."""
    inner = function.func if isinstance(function, functools.partial) else function
    return f"{inner.__module__}.{inner.__qualname__}"


def settings_of(function: Callable[..., Any]) -> dict[str, Json]:
    """Return what identifies a function: its module and name, the settings of its method, and the values bound to it by
    partial, as defaults or in its closure; for a lambda, whose name is not unique, also its code.

    Raises TrialError where it depends on something that cannot be serialised."""
    settings: dict[str, Json] = {}
    inner = function
    if isinstance(function, functools.partial):
        settings["bound"] = [*map(_json, function.args), {name: _json(one) for name, one in function.keywords.items()}]
        inner = function.func
    if not inspect.isroutine(inner):
        raise TrialError(f"{inner!r} is not a function, so it has no address; write a function or a method")
    owner = getattr(inner, "__self__", None)
    if isinstance(owner, BaseModel):
        settings["method"] = owner.model_dump(mode="json")
    elif inspect.ismethod(inner) and not isinstance(owner, type):
        raise TrialError(f"{name_of(inner)} belongs to {owner!r}; only a method, a task or a loss has an address")
    return {"function": name_of(function), **settings, **(_own_settings(inner) if inspect.isfunction(inner) else {})}


def _own_settings(function: FunctionType) -> dict[str, Json]:
    settings: dict[str, Json] = {}
    around = inspect.getclosurevars(function).nonlocals
    if around:
        settings["around"] = {name: _json(one) for name, one in around.items()}
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    if defaults:
        settings["defaults"] = [*map(_json, defaults)]
    if function.__name__ == "<lambda>":
        settings["does"] = _code(function.__code__)
    return settings


def _code(code: CodeType) -> str:
    """Return a hash of a function's code, independent of its place in a file."""
    constants = [_code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return fingerprint([code.co_code.hex(), [*code.co_names], *constants])


def _json(value: Any) -> Json:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if inspect.isfunction(value) or inspect.ismethod(value):
        return settings_of(value)
    raise TrialError(f"a function is bound to {value!r}, which has no address; bind numbers, texts or a method")
