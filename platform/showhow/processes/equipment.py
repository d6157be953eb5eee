"""Gives a trial's process the classes that the driver has registered.

Ray pickles them with the function that a process runs. A class of an installed package is pickled by name; one of a
script, a notebook, or a package next to it is pickled by value, so that workers need not be able to import it.
"""

import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from ray import cloudpickle
from showhow.kinds import register, registered

P = ParamSpec("P")
R = TypeVar("R")


def equipped(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, preceded in any process by registering the classes that are registered here."""
    classes = registered()
    if not classes:
        return function
    for module in {cls.__module__ for cls in classes}:
        if not _is_installed(module):
            cloudpickle.register_pickle_by_value(sys.modules[module])

    def run(*arguments: P.args, **named: P.kwargs) -> R:
        for cls in classes:
            register(cls)
        return function(*arguments, **named)

    return run


def _is_installed(name: str) -> bool:
    """True for a module of an installed package, which workers have too; not for one of this process only."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None or name == "__main__":
        return True  # cloudpickle itself pickles these by value
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")}
    return file is not None and any(Path(file).resolve().is_relative_to(Path(place).resolve()) for place in places)
