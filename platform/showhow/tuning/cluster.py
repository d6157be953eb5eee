"""Connects to a Ray cluster, or starts one on this machine, and checks that the study fits on it before anything
runs."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
import showhow
from showhow.errors import UserError
from showhow.study.sections import Resources

# Importing these takes a trial's process 5-9 s; Ray loads them ahead of time in the processes it keeps ready.
_PRELOADED = ("torch", "transformers.models.llama.modeling_llama", "showhow.methods.sft")


_KNOCK_SECONDS = 10


@dataclass(frozen=True)
class Cluster:
    """What a connected cluster has."""

    cpus: int
    gpus: float
    nodes: int

    def concurrent_runs(self, resources: Resources) -> int:
        """How many runs hold their resources at once."""
        limits = [self.cpus // resources.cpus_per_trial]
        if resources.gpus_per_trial:
            limits.append(int(self.gpus / resources.gpus_per_trial))
        if resources.max_concurrent:
            limits.append(resources.max_concurrent)
        return min(limits)


@contextmanager
def connected(address: str | None, resources: Resources) -> Iterator[Cluster]:
    """Connect to the cluster at `address` (`auto`: one running on this machine), or start a local one for None; leave
    it at the end. A cluster that was started here is ended, another one is only disconnected from.

    Raises UserError when the cluster cannot be reached or is too small for one trial."""
    if address is None:
        _check_local(resources)
    _connect(address)
    try:
        total = ray.cluster_resources()
        cluster = Cluster(int(total.get("CPU", 0)), float(total.get("GPU", 0)), len(ray.nodes()))
        _check_fits(cluster, resources, "the cluster has")
        yield cluster
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    settings = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # By inheritance and not by a runtime environment, for which Ray would start its processes a second time.
        for name, value in _quiet().items():
            os.environ.setdefault(name, value)
        ray.init(
            "local", include_dashboard=False, _system_config={"preload_python_modules": list(_PRELOADED)}, **settings
        )
        return
    _check_answers(address)
    try:
        package = str(Path(showhow.__file__).parent)
        ray.init(address=address, runtime_env={"py_modules": [package], "env_vars": _quiet()}, **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, str(error).splitlines()[0]) from None


def _check_answers(address: str) -> None:
    """Knock at the cluster's port first: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", for which Ray looks on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at --address {address} ({reason}). "
        'Start one with "ray start --head", or leave --address out to use this machine alone'
    )


def _quiet() -> dict[str, str]:
    return {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1"}


def _check_local(resources: Resources) -> None:
    """Refuse what this machine cannot hold before seconds are spent on starting a cluster."""
    if not resources.gpus_per_trial:
        _check_fits(Cluster(os.cpu_count() or 1, 0.0, 1), resources, "this machine has")


def _check_fits(cluster: Cluster, resources: Resources, who: str) -> None:
    if resources.cpus_per_trial > cluster.cpus:
        raise UserError(
            f"resources.cpus_per_trial = {resources.cpus_per_trial}, but {who} {cluster.cpus} CPUs; "
            f"set it to at most {cluster.cpus}, or give the --address of a larger cluster"
        )
    if resources.gpus_per_trial > cluster.gpus:
        raise UserError(
            f"resources.gpus_per_trial = {resources.gpus_per_trial:g}, but {who} {cluster.gpus:g} GPUs; "
            "set it to 0 to train on CPUs, or give the --address of a cluster with GPUs"
        )
