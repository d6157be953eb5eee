"""Checks all laws of a suite at once, in a notebook or a script."""

from collections.abc import Callable
from typing import Any

from showhow.methods.base import Method
from showhow.metrics import Metric
from showhow.tasks.base import Task
from showhow.testing.method_contract import MethodContract
from showhow.testing.metric_contract import MetricContract
from showhow.testing.task_contract import TaskContract

_SUITES = ((Task, TaskContract), (Method, MethodContract), (Metric, MetricContract))


def check(subject: Task | Method | Metric) -> None:
    """Check a task, a method or a metric against its suite. Raises AssertionError with the law that it breaks."""
    suite = suite_of(subject)
    tests: list[Callable[[], None]] = [getattr(suite, name) for name in dir(suite) if name.startswith("test_")]
    for test in tests:
        test()


def suite_of(subject: Task | Method | Metric) -> Any:
    """Return the suite for a task, a method or a metric."""
    kind = next(kind for base, kind in _SUITES if isinstance(subject, base))
    suite: Any = kind()
    suite.subject = subject
    return suite
