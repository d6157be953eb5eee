"""Connects to a Ray cluster, or starts one on this machine, and checks that the study fits on it before anything
runs."""

import gc
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from showhow.errors import UserError
from showhow.machines.room import Cluster, Demand, Node, shortage, this_machine

# Importing it takes a process 2-9 s; Ray does so ahead of time in the processes that it makes ready.
_PRELOADED, _PRELOADED_IF_SPREAD = "showhow.processes.preload", "showhow.processes.preload_spread"
# It makes as many ready as there are CPUs, each with 0.3 GB of its own: on a large machine only if each has a run.
_MAY_IDLE = 16
_MAY_IDLE_SECONDS = 60
_KNOCK_SECONDS = 10
_SILENT = {"logging_level": logging.ERROR, "log_to_driver": False}  # what trials print stays in Ray's log files


@contextmanager
def connected(address: str | None, demand: Demand) -> Iterator[Cluster]:
    """Connect to the cluster at `address` (`auto`: one running on this machine), or start a local one for None; leave
    it at the end. A cluster that was started here is ended, another one is only disconnected from.

    Raises UserError when the cluster cannot be reached or is too small for one trial."""
    if address is None:
        _check_local(demand)
        _start(demand)
    else:
        _connect(address)
    try:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cluster = Cluster(tuple(Node(int(has.get("CPU", 0)), float(has.get("GPU", 0))) for has in alive))
        _check_fits(cluster, demand, "the cluster")
        yield cluster
    finally:
        _leave()


def _leave() -> None:
    """End or leave the cluster. Were the collector to find an object of Ray's meanwhile, in whatever thread, Ray would
    end this process."""
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _start(demand: Demand) -> None:
    """Start a cluster here, with processes made ready for the first runs."""
    # By inheritance and not by a runtime environment, for which Ray would start its processes a second time.
    for name, value in _environment().items():
        os.environ.setdefault(name, value)
    busy = min(demand.runs * demand.most, this_machine().devices(demand.each))
    are_made_ready = this_machine().cpus <= max(busy, _MAY_IDLE)
    config = {
        "preload_python_modules": [_PRELOADED_IF_SPREAD if demand.is_spread else _PRELOADED],
        "enable_worker_prestart": are_made_ready,  # up to a second earlier than with the first driver
        "prestart_worker_first_driver": are_made_ready,
        # By default they would end when Ray Tune reserves the CPUs, a moment before it asks for them.
        "idle_worker_killing_time_threshold_ms": _MAY_IDLE_SECONDS * 1000,
    }
    ray.init("local", include_dashboard=False, _system_config=config, **_SILENT)


def _connect(address: str) -> None:
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address}: a study cannot be driven through the Ray Client; "
            "give HOST:PORT of the head node, or run this command there with --address auto"
        )
    _check_answers(address)
    try:
        package = str(Path(__file__).resolve().parents[1])
        ray.init(address=address, runtime_env={"py_modules": [package], "env_vars": _environment()}, **_SILENT)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _no_cluster(address, str(error).splitlines()[0]) from None


def _check_answers(address: str) -> None:
    """Knock at the cluster's port first: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", for which Ray looks on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at --address {address} ({reason}). "
        'Start one with "ray start --head", or leave --address out to use this machine alone'
    )


def _environment() -> dict[str, str]:
    """Return what is set for every process of a trial."""
    return {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that asks for no GPU sees none
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # or what is asked while a process is made ready would fix the answer
    }


def _check_local(demand: Demand) -> None:
    """Refuse what this machine cannot hold before seconds are spent on starting a cluster."""
    if not demand.each.gpus_per_device:  # Ray itself counts the GPUs
        _check_fits(this_machine(), demand, "this machine")


def _check_fits(cluster: Cluster, demand: Demand, who: str) -> None:
    problem = shortage(cluster, demand, who)
    if problem is not None:
        raise UserError(problem)
