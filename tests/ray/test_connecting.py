"""What processes on a cluster get from the driver: packages, settings of its environment, and secrets unseen."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = """
import sys
import ray
from showhow.machines.layout import Layout
from showhow.machines.room import Demand
from showhow.processes.cluster import connected
from showhow.sections.resources import Resources

@ray.remote
def seen():
    import os
    from my_package import GREETING
    return GREETING, [os.environ.get(name) for name in ("HF_TOKEN", "HF_HOME", "NCCL_DEBUG", "UNRELATED")]

demand = Demand(1, (Layout(devices=1, micro_batch_size=1),), Resources(cpus_per_device=1))
with connected(sys.argv[1], demand, py_modules=[sys.argv[2]]) as connection:
    print("CPUS", connection.cluster.cpus, connection.environment)
    print("SEEN", *ray.get(seen.remote()))
print("LEFT", not ray.is_initialized())
"""
# Ray's own authentication, with a token of the test's; else it depends on what this machine's user has.
AUTHENTICATION = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
TOKEN = "hf_token-that-nobody-must-read"  # noqa: S105 - of no use


@dataclass(frozen=True)
class Head:
    address: str
    folder: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def head() -> Iterator[Head]:
    """A cluster of one node, in a process group of its own."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short path: Ray's sockets are in it
        port = free_port()
        options = {"port": port, "num-cpus": 2, "temp-dir": folder, "ray-client-server-port": free_port()}
        options |= {"dashboard-agent-listen-port": free_port(), "include-dashboard": "false"}
        command = Path(sys.executable).with_name("ray")
        process = subprocess.Popen(
            [command, "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, **AUTHENTICATION},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not _answers(port):
            assert process.poll() is None
            time.sleep(0.2)
        yield Head(f"127.0.0.1:{port}", Path(folder))
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_workers_import_further_packages_and_have_the_settings_while_no_log_has_a_secret(
    head: Head, tmp_path: Path
) -> None:
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text('GREETING = "hello"\n')
    settings = {"HF_TOKEN": TOKEN, "HF_HOME": "/models", "NCCL_DEBUG": "INFO", "UNRELATED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, head.address, package],
        env={**os.environ, **AUTHENTICATION, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CPUS 2 {}" in done.stdout
    assert f"SEEN hello ['{TOKEN}', '/models', 'INFO', None]" in done.stdout
    assert "LEFT True" in done.stdout
    logs = [path for path in head.folder.rglob("*") if path.is_file()]
    assert len(logs) > 5
    assert [str(path) for path in logs if TOKEN.encode() in path.read_bytes()] == []


def test_a_ray_that_does_not_start_is_an_error_without_a_traceback(showhow, tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process = showhow("run", tiny_file, home=tmp_path / "runs", RAY_TMPDIR=str(tmp_path / "file"))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Ray did not start on this machine: " in errors
    assert "Traceback" not in errors
