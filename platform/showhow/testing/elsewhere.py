"""Calls functions of tasks and methods in another process, with another seed of Python's hashes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from importlib import import_module

from pydantic import BaseModel

from showhow.fingerprint import Json

_CODE = """
import json, sys
places, function, subjects = json.loads(sys.stdin.read())
sys.path[:] = places
from showhow.testing.elsewhere import found
print(json.dumps([found(*function)(*(found(*place).model_validate_json(values) for place, values in subjects))]))
"""


def found(module: str, name: str) -> Callable[..., Json]:
    """Return a module's object by its name."""
    return reduce(getattr, name.split("."), import_module(module))  # type: ignore[return-value]


def elsewhere(function: Callable[..., Json], *subjects: BaseModel) -> Json:
    """Return a function's result for tasks and methods in another process. Raises AssertionError where they cannot
    be made there."""
    places = [(_place(type(subject)), subject.model_dump_json()) for subject in subjects]
    given = json.dumps([[place or os.getcwd() for place in sys.path], _place(function), places])
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        input=given,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        f"{_named(subjects)} cannot be made and run in another process; define its class at the top level of a module "
        f"that can be imported:\n{done.stderr.strip()[-800:]}"
    )
    answer: list[Json] = json.loads(done.stdout.splitlines()[-1])
    return answer[0]


def _place(what: type | Callable[..., Json]) -> tuple[str, str]:
    return what.__module__, what.__qualname__


def _named(subjects: tuple[BaseModel, ...]) -> str:
    return " with ".join(type(subject).__name__ for subject in subjects)
