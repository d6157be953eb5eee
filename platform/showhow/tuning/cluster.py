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
from showhow.study.layout import Layout
from showhow.study.sections import Resources

# Importing it takes a process 2-9 s; Ray does so ahead of time in the processes that it makes ready.
_PRELOADED, _PRELOADED_IF_SPREAD = "showhow.tuning.preload", "showhow.tuning.preload_spread"
# It makes as many ready as there are CPUs, each with 0.3 GB of its own: on a large machine only if each has a run.
_MAY_IDLE = 16
_MAY_IDLE_SECONDS = 60
_KNOCK_SECONDS = 10
_SILENT = {"logging_level": logging.ERROR, "log_to_driver": False}  # what trials print stays in Ray's log files


@dataclass(frozen=True)
class Demand:
    """What a study asks of a cluster: how many runs, how the trials are laid out, what each device of a run has."""

    runs: int
    layouts: tuple[Layout, ...]
    each: Resources

    @property
    def least(self) -> int:
        """Devices of the smallest trial."""
        return min(layout.devices for layout in self.layouts)

    @property
    def most(self) -> int:
        """Devices of the largest trial."""
        return max(layout.devices for layout in self.layouts)

    @property
    def is_spread(self) -> bool:
        """Whether a trial takes more than one plain process."""
        return any(layout.needs_deepspeed for layout in self.layouts)


@dataclass(frozen=True)
class Node:
    """The processors of one machine of a cluster."""

    cpus: int
    gpus: float

    def devices(self, resources: Resources) -> int:
        """How many devices of runs find room on it."""
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

    def devices(self, resources: Resources) -> int:
        """How many devices of runs hold their resources at once."""
        return sum(node.devices(resources) for node in self.nodes)

    def runs_at_once(self, demand: Demand) -> int:
        """How many runs go on side by side, at most; the devices of one may lie on several machines."""
        room = self.devices(demand.each) // demand.least
        return min(room, demand.each.max_concurrent or room)


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
    busy = min(demand.runs * demand.most, _this_machine().devices(demand.each))
    are_made_ready = _this_machine().cpus <= max(busy, _MAY_IDLE)
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
        package = str(Path(showhow.__file__).parent)
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
    if not demand.each.gpus_per_device:
        _check_fits(_this_machine(), demand, "this machine")


def _this_machine() -> Cluster:
    return Cluster((Node(os.cpu_count() or 1, 0.0),))  # Ray itself counts the GPUs


def _check_fits(cluster: Cluster, demand: Demand, who: str) -> None:
    each, room = demand.each, cluster.devices(demand.each)
    if room >= demand.most:
        return
    if room:
        raise UserError(
            f"resources.devices_per_trial: a trial takes {demand.most} devices of {each.cpus_per_device} CPUs and "
            f"{each.gpus_per_device:g} GPUs each, but {who} has room for {room} ({cluster.cpus} CPUs, {cluster.gpus:g} "
            f"GPUs); set it to at most {room}, or give the --address of a larger cluster"
        )
    cpus, gpus = max(node.cpus for node in cluster.nodes), max(node.gpus for node in cluster.nodes)
    largest = who if len(cluster.nodes) == 1 else f"the largest machine of {who}"
    if each.cpus_per_device > cpus:
        raise UserError(
            f"resources.cpus_per_device = {each.cpus_per_device}, but {largest} has {cpus} CPUs; "
            f"set it to at most {cpus}, or give the --address of a cluster with larger machines"
        )
    raise UserError(
        f"resources.gpus_per_device = {each.gpus_per_device:g}, but {largest} has {gpus:g} GPUs (with "
        f"{each.cpus_per_device} CPUs beside them); "
        "set it to 0 to train on CPUs, or give the --address of a cluster with GPUs"
    )
