"""Where vLLM is installed, and for which trials it can write replies. Pure; vLLM is not imported."""

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from showhow.sections.faults import Fault
from showhow.sections.recipe import ScratchModel
from showhow.sections.resources import Sharding
from showhow.sections.trial import Trial

# The variable with the Python of an environment that has vLLM, if it is not this one.
VLLM_PYTHON = "SHOWHOW_VLLM"


def vllm_python() -> str | None:
    """Return the path of a Python that has vLLM; None where there is none."""
    named = os.environ.get(VLLM_PYTHON)
    if named is not None:
        return named if os.access(named, os.X_OK) else None
    return sys.executable if find_spec("vllm") else None


def how_to_get_vllm() -> str:
    """Return what is missing where vllm_python returns None, and what to do."""
    named = os.environ.get(VLLM_PYTHON)
    found = "vLLM is not installed" if named is None else f"{VLLM_PYTHON}={named} is no Python that can be started"
    return (
        f"{found}. It needs other packages than ShowHow does, so give it an environment of its own, "
        f"python -m venv vllm && vllm/bin/pip install vllm, and let {VLLM_PYTHON} be the path of vllm/bin/python"
    )


def vllm_faults(trial: Trial, sharding: Sharding) -> Iterator[Fault]:
    """Yield why vLLM cannot write the replies of a trial that asks for it. Whether a pretrained model has an encoder is
    known only when it is loaded."""
    key = "evaluation.written_by"
    if trial.evaluation.written_by != "vllm":
        return
    if vllm_python() is None:
        yield Fault(key, how_to_get_vllm())
    if trial.adapter is not None:
        yield Fault(key, 'got "vllm", which reads complete models only, and this one has an adapter; write "showhow"')
    if isinstance(trial.model, ScratchModel) and trial.model.architecture == "t5":
        yield Fault(key, 'got "vllm", which writes replies of causal models only, and t5 is none; write "showhow"')
    if sharding.zero_stage == 3:
        yield Fault(
            key, 'got "vllm", which loads the complete model, but zero_stage = 3 partitions it; write "showhow"'
        )
