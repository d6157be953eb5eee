"""Test tools for tasks, methods and metrics of this and other packages: a bench in memory, and suites of laws.

A suite is a class of plain tests whose attribute `subject` is what they test. Inherit from it in a test file that
pytest collects, or call `check`. Nothing here loads torch, ray, mlflow or pytest.
"""

from showhow.testing.bench import FakeBench, Stage, Store
from showhow.testing.carry_out import carry_out
from showhow.testing.check import check
from showhow.testing.fakes import FakeData, FakeModel
from showhow.testing.method_contract import MethodContract
from showhow.testing.metric_contract import MetricContract
from showhow.testing.task_contract import TaskContract

__all__ = [
    "FakeBench",
    "FakeData",
    "FakeModel",
    "MethodContract",
    "MetricContract",
    "Stage",
    "Store",
    "TaskContract",
    "carry_out",
    "check",
]
