"""Runs a method on a bench in memory, in the same order as a study."""

from showhow.errors import TrialError
from showhow.methods.base import Method
from showhow.testing.bench import FakeBench
from showhow.testing.fakes import FakeModel


def carry_out(method: Method, bench: FakeBench) -> FakeModel:
    """Prepare a method's data, run it on them, and return its model; `bench.stages` are those of the run. Raises
    TrialError where the method does not return a model of the bench."""
    preparing = bench.preparing()
    prepared = method.prepare(preparing)
    model = method.run(bench, preparing.problems() if prepared is None else prepared)
    if not isinstance(model, FakeModel):
        raise TrialError(f"the method {method.kind} returned {type(model).__name__}; run must return a model")
    return model
