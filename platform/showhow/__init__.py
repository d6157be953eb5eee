"""ShowHow finds out how much explanation a language model needs.

The public names. Each loads when first used, so `from showhow import Study` loads no ray, torch or mlflow.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from showhow.errors import TrialError, UserError
    from showhow.evidence.result import ArmRow, Comparison, StudyResult
    from showhow.evidence.verdict import verdict
    from showhow.home.export import export
    from showhow.home.predict import predict
    from showhow.home.results import results
    from showhow.kinds import register
    from showhow.methods.base import Method
    from showhow.metrics import Metric
    from showhow.study.study import Study
    from showhow.sweep.run_study import run_study
    from showhow.tasks.base import Task
    from showhow.tasks.explain import Level

__version__ = "0.1.0"
__all__ = [
    "ArmRow",
    "Comparison",
    "Level",
    "Method",
    "Metric",
    "Study",
    "StudyResult",
    "Task",
    "TrialError",
    "UserError",
    "__version__",
    "export",
    "predict",
    "register",
    "results",
    "run_study",
    "verdict",
]

_MODULES = {
    "ArmRow": "showhow.evidence.result",
    "Comparison": "showhow.evidence.result",
    "Level": "showhow.tasks.explain",
    "Method": "showhow.methods.base",
    "Metric": "showhow.metrics",
    "Study": "showhow.study.study",
    "StudyResult": "showhow.evidence.result",
    "export": "showhow.home.export",
    "predict": "showhow.home.predict",
    "Task": "showhow.tasks.base",
    "TrialError": "showhow.errors",
    "UserError": "showhow.errors",
    "register": "showhow.kinds",
    "results": "showhow.home.results",
    "run_study": "showhow.sweep.run_study",
    "verdict": "showhow.evidence.verdict",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'showhow' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_MODULES[name]), name)
