"""What a trial's process needs of the program that drives the study: the classes that it has registered.

Ray carries them with the function that a process runs. A class of an installed package travels by its name; one of a
script, a notebook, or a package that lies beside it travels whole, so workers need not be able to import it.
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
    """Return a function that, in whatever process, first registers the classes that are registered here."""
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
    """True for a module of an installed package, which workers have too; not for one that only this process knows."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None or name == "__main__":
        return True  # cloudpickle itself carries what no other process can import
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")}
    return file is not None and any(Path(file).resolve().is_relative_to(Path(place).resolve()) for place in places)
