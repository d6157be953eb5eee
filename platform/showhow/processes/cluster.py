"""Connects to a Ray cluster, or starts one on this machine, and checks that the study fits on it before anything
runs. A Ray that the caller has initialised is used unchanged, and left running."""

import gc
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import ray
from showhow.errors import UserError
from showhow.machines.room import Cluster, Demand, Node, shortage, this_machine

# Importing it takes a process 2-9 s; Ray does so ahead of time in the processes that it prestarts.
_PRELOADED, _PRELOADED_IF_SPREAD = "showhow.processes.preload", "showhow.processes.preload_spread"
# It prestarts one process per CPU, each with 0.3 GB of its own: on a large machine only if each has a run.
_MAY_IDLE = 16
_MAY_IDLE_SECONDS = 60
_CONNECT_SECONDS = 10
_SILENT = {"logging_level": logging.ERROR, "log_to_driver": False}  # what trials print stays in Ray's log files

# Environment variables that workers on a cluster need from the driver, as patterns: where models and datasets are
# read, how devices communicate.
FORWARDED = (
    "GLOO_SOCKET_IFNAME",
    "HF_DATASETS_CACHE",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "NCCL_*",
    "SHOWHOW_VLLM",
    "TORCH_NCCL_*",
    "TRANSFORMERS_OFFLINE",
)
# The same, but kept out of Ray's runtime environment, which Ray shows on its dashboard and writes to its logs.
SECRET = ("AWS_*", "HF_TOKEN", "OPENAI_API_KEY")


@dataclass(frozen=True)
class Connection:
    """A Ray to run trials on. environment: variables to set in trials' processes."""

    cluster: Cluster
    environment: dict[str, str]


@contextmanager
def connected(address: str | None, demand: Demand, py_modules: Sequence[str] = ()) -> Iterator[Connection]:
    """Connect to the cluster at `address` (`auto`: one running on this machine); for None use the Ray that this process
    is connected to, or start a local one. At the end stop a cluster that was started here, and disconnect from one that
    was connected to here; one that the caller had initialised stays.

    py_modules: folders of additional packages that processes on a cluster must be able to import. Raises UserError when
    the cluster cannot be reached, is not the caller's, or is too small for one trial."""
    is_callers = bool(ray.is_initialized())
    if is_callers:
        _check_callers(address)
    elif address is None:
        _check_local(demand)
        _start(demand)
    else:
        _connect(address, py_modules)
    try:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cluster = Cluster(tuple(Node(int(has.get("CPU", 0)), float(has.get("GPU", 0))) for has in alive))
        _check_fits(cluster, demand, "the Ray that this process is connected to" if is_callers else "the cluster")
        yield Connection(cluster, _set_here(FORWARDED) | _environment() if is_callers else {})
    finally:
        if not is_callers:
            _leave()


def _check_callers(address: str | None) -> None:
    """Raise UserError where the caller's Ray is not the cluster at the address, or cannot run a study."""
    from ray.util.client import ray as ray_client  # loads gRPC

    if ray_client.is_connected():
        raise UserError(
            "this process is connected to Ray through the Ray Client (ray://), which cannot run a study; call "
            "ray.shutdown() first, or run this on a machine of the cluster with address='auto'"
        )
    found = ray.get_runtime_context().gcs_address
    if address not in (None, "auto") and not _is_same(str(address), found):
        raise UserError(
            f"--address {address}: this process is connected to another Ray already, at {found}. Omit the address "
            "to use that one, or call ray.shutdown() first"
        )


def _is_same(address: str, other: str) -> bool:
    """Return whether two addresses HOST:PORT are the same; this machine has several names."""
    (host, _, port), (other_host, _, other_port) = address.rpartition(":"), other.rpartition(":")
    if port != other_port:
        return False
    try:
        found, other_found = socket.gethostbyname(host.strip("[]")), socket.gethostbyname(other_host.strip("[]"))
    except (OSError, UnicodeError):
        return False
    here = {"127.0.0.1", ray.util.get_node_ip_address()}
    return found == other_found or {found, other_found} <= here


def _leave() -> None:
    """Stop or leave the cluster. Without the garbage collector: if it collects an object of Ray's meanwhile, in any
    thread, Ray ends this process."""
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _start(demand: Demand) -> None:
    """Start a cluster here, with prestarted processes for the first runs."""
    # Inherited, not a runtime environment, for which Ray would start its processes a second time.
    for name, value in _environment().items():
        os.environ.setdefault(name, value)
    busy = min(demand.runs * demand.most, this_machine().devices(demand.each))
    prestarts = this_machine().cpus <= max(busy, _MAY_IDLE)
    config = {
        "preload_python_modules": [_PRELOADED_IF_SPREAD if demand.is_spread else _PRELOADED],
        "enable_worker_prestart": prestarts,  # up to a second before the first driver connects
        "prestart_worker_first_driver": prestarts,
        # By default they would end when Ray Tune reserves the CPUs, just before it uses them.
        "idle_worker_killing_time_threshold_ms": _MAY_IDLE_SECONDS * 1000,
    }
    try:
        ray.init("local", include_dashboard=False, _system_config=config, **_SILENT)
    except Exception as error:
        raise UserError(
            f"Ray did not start on this machine: {error}\nIt gives up after 30 seconds when a machine is very busy. "
            "Run the same command again; what was reported so far is saved"
        ) from error


def _connect(address: str, py_modules: Sequence[str]) -> None:
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address}: a study cannot be run through the Ray Client; "
            "give HOST:PORT of the head node, or run this command there with --address auto"
        )
    _check_answers(address)
    package = str(Path(__file__).resolve().parents[1])
    runtime_env = {
        "py_modules": [package, *py_modules],
        "env_vars": _set_here(FORWARDED) | _environment(),
        **({"worker_process_setup_hook": _setter(secrets)} if (secrets := _set_here(SECRET)) else {}),
    }
    try:
        ray.init(address=address, runtime_env=runtime_env, **_SILENT)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _no_cluster(address, str(error).splitlines()[0]) from None


def _set_here(patterns: Sequence[str]) -> dict[str, str]:
    """Return the environment variables of this process whose names match."""
    return {name: value for name, value in os.environ.items() if any(fnmatch(name, each) for each in patterns)}


def _setter(variables: dict[str, str]) -> Callable[[], None]:
    """Return a function that a process calls at its start, to set variables without Ray seeing their names."""

    def set_variables() -> None:
        import os

        os.environ.update(variables)

    return set_variables


def _check_answers(address: str) -> None:
    """Try the cluster's port first: Ray itself retries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", for which Ray looks on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at --address {address} ({reason}). "
        'Start one with "ray start --head", or omit --address to use this machine'
    )


def _environment() -> dict[str, str]:
    """Return the environment variables of every process of a trial."""
    return {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without GPUs sees none
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # otherwise a check in a prestarted process would fix the answer
    }


def _check_local(demand: Demand) -> None:
    """Refuse a study that does not fit on this machine, before a cluster is started, which takes seconds."""
    if not demand.each.gpus_per_device:  # Ray itself counts the GPUs
        _check_fits(this_machine(), demand, "this machine")


def _check_fits(cluster: Cluster, demand: Demand, who: str) -> None:
    problem = shortage(cluster, demand, who)
    if problem is not None:
        raise UserError(problem)
