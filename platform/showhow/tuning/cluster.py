"""Connects to a Ray cluster, or starts one on this machine, and checks that the study fits on it before anything
runs."""

import gc
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

# Importing it takes a process 4-9 s; Ray does so ahead of time in the processes that it makes ready.
_PRELOADED = "showhow.tuning.preload"
# It makes as many ready as there are CPUs, each with 0.3 GB of its own: on a large machine only if each has a run.
_MAY_IDLE = 16
_MAY_IDLE_SECONDS = 60
_KNOCK_SECONDS = 10
_SILENT = {"logging_level": logging.ERROR, "log_to_driver": False}  # what trials print stays in Ray's log files


@dataclass(frozen=True)
class Node:
    """The processors of one machine of a cluster."""

    cpus: int
    gpus: float

    def runs_at_once(self, resources: Resources) -> int:
        """How many runs find room on it."""
        rooms = [self.cpus // resources.cpus_per_device]
        if resources.gpus_per_device:
            rooms.append(int(self.gpus / resources.gpus_per_device + 1e-9))
        return min(rooms)


@dataclass(frozen=True)
class Cluster:
    """The machines of a connected cluster."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> int:
        """All CPUs."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """All GPUs."""
        return sum(node.gpus for node in self.nodes)

    def runs_at_once(self, resources: Resources) -> int:
        """How many runs hold their resources at once; one run never spans two machines."""
        room = sum(node.runs_at_once(resources) for node in self.nodes)
        return min(room, resources.max_concurrent or room)


@contextmanager
def connected(address: str | None, resources: Resources, runs: int) -> Iterator[Cluster]:
    """Connect to the cluster at `address` (`auto`: one running on this machine), or start a local one for None; leave
    it at the end. A cluster that was started here is ended, another one is only disconnected from. `runs`: how many
    there are at most.

    Raises UserError when the cluster cannot be reached or is too small for one trial."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        _check_local(resources)
        _start(min(runs, _this_machine().runs_at_once(resources)))
    else:
        _connect(address)
    try:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cluster = Cluster(tuple(Node(int(has.get("CPU", 0)), float(has.get("GPU", 0))) for has in alive))
        _check_fits(cluster, resources, "the largest machine of the cluster has")
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


def _start(busy: int) -> None:
    """Start a cluster here, of which `busy` processes will train at once."""
    # By inheritance and not by a runtime environment, for which Ray would start its processes a second time.
    for name, value in _quiet().items():
        os.environ.setdefault(name, value)
    are_made_ready = _this_machine().cpus <= max(busy, _MAY_IDLE)
    config = {
        "preload_python_modules": [_PRELOADED],
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
        package = str(Path(showhow.__file__).parent)
        ray.init(address=address, runtime_env={"py_modules": [package], "env_vars": _quiet()}, **_SILENT)
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


def _quiet() -> dict[str, str]:
    return {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1"}


def _check_local(resources: Resources) -> None:
    """Refuse what this machine cannot hold before seconds are spent on starting a cluster."""
    if not resources.gpus_per_device:
        _check_fits(_this_machine(), resources, "this machine has")


def _this_machine() -> Cluster:
    return Cluster((Node(os.cpu_count() or 1, 0.0),))  # Ray itself counts the GPUs


def _check_fits(cluster: Cluster, resources: Resources, who: str) -> None:
    if cluster.runs_at_once(resources):
        return
    cpus, gpus = max(node.cpus for node in cluster.nodes), max(node.gpus for node in cluster.nodes)
    if resources.cpus_per_device > cpus:
        raise UserError(
            f"resources.cpus_per_device = {resources.cpus_per_device}, but {who} {cpus} CPUs; "
            f"set it to at most {cpus}, or give the --address of a cluster with larger machines"
        )
    raise UserError(
        f"resources.gpus_per_device = {resources.gpus_per_device:g}, but {who} {gpus:g} GPUs (with "
        f"{resources.cpus_per_device} CPUs beside them); "
        "set it to 0 to train on CPUs, or give the --address of a cluster with GPUs"
    )
