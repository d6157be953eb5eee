"""ShowHow finds out how much explanation a language model needs.

The package's face. Names load when first used, so `from showhow import Study` loads no ray, torch or mlflow.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from showhow.errors import TrialError, UserError
    from showhow.evidence.result import ArmRow, Comparison, StudyResult
    from showhow.evidence.verdict import verdict
    from showhow.home.results import results
    from showhow.study.study import Study
    from showhow.sweep.run_study import run_study

__version__ = "0.1.0"
__all__ = [
    "ArmRow",
    "Comparison",
    "Study",
    "StudyResult",
    "TrialError",
    "UserError",
    "__version__",
    "results",
    "run_study",
    "verdict",
]

_HOMES = {
    "ArmRow": "showhow.evidence.result",
    "Comparison": "showhow.evidence.result",
    "StudyResult": "showhow.evidence.result",
    "results": "showhow.home.results",
    "verdict": "showhow.evidence.verdict",
    "Study": "showhow.study.study",
    "TrialError": "showhow.errors",
    "UserError": "showhow.errors",
    "run_study": "showhow.sweep.run_study",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'showhow' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
