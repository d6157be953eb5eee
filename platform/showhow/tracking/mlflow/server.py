"""MLflow's own server as a child process, so that a person can look at a study. It listens on this machine only."""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from showhow.errors import UserError
from showhow.tracking.address import artifact_location, is_server, redact

log = logging.getLogger("showhow")

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_START_SECONDS, _STOP_SECONDS = 120.0, 5.0  # 4 s on an idle machine, 30 s were seen on a busy one

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a handful of further processes, for features we do not use
    "PYTHONSAFEPATH": "1",  # whatever lies in the current folder is not imported
}


@dataclass
class UiServer:
    """A running server: its address, and the process that `stop` ends. Use it as a context manager."""

    address: str
    process: subprocess.Popen[bytes]

    def __enter__(self) -> "UiServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Return when the server ends or Ctrl-C is pressed; either way nothing is left behind."""
        try:
            self.process.wait()
        except KeyboardInterrupt:
            log.debug("stopping the MLflow server at %s", self.address)
        finally:
            self.stop()

    def stop(self) -> None:
        """End the server and the workers it started. A second call does nothing."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, signal_number)
                self.process.wait(_STOP_SECONDS)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def serve_ui(uri: str, host: str = "127.0.0.1", port: int | None = None, allow_remote: bool = False) -> UiServer:
    """Start `mlflow server` on the database at `uri` and return once it answers; `port` None picks a free one.

    The caller calls `stop` or `wait`. Raises UserError for a `uri` that already is a server, for a host other than
    loopback without `allow_remote` (the server asks nobody for a password), and when the server does not start.
    """
    if is_server(uri):
        raise UserError(f"{redact(uri)} already is a server. Allowed: a database address. Do: open it in the browser.")
    if host not in LOOPBACK and not allow_remote:
        raise UserError(
            f"host {host}: anyone who reaches it could read and delete all runs, for the server asks no password. "
            f"Allowed: {', '.join(LOOPBACK)}. Do: use 127.0.0.1 and an SSH tunnel, or allow remote access explicitly."
        )
    port = _free_port(host, port or 0)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with tempfile.TemporaryFile() as said:
        server = UiServer(address, _start(uri, host, port, said))
        try:
            _wait_until_healthy(server, said)
        except BaseException:
            server.stop()
            raise
    return server


def _start(uri: str, host: str, port: int, said: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", str(Path(__file__).with_name("until_orphaned.py"))]
    command += [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    if (artifacts := artifact_location(uri)) is not None:
        command += ["--artifacts-destination", artifacts]
    # the address goes by the environment: a command line, and a password in it, can be read by every user (ps)
    environment = {**os.environ, **_SETTINGS, "MLFLOW_BACKEND_STORE_URI": uri}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
    )


def _wait_until_healthy(server: UiServer, said: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server.address}/health", timeout=2) as answer:  # noqa: S310 - our own http address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    said.seek(0)
    last = redact(said.read().decode(errors="replace").strip())[-600:]
    raise UserError(
        f"the MLflow server did not start at {server.address}. It said: {last or 'nothing'}. Allowed: a free port and "
        "a database that MLflow can read. Do: name another port, or correct the tracking address."
    )


def _free_port(host: str, port: int) -> int:
    """Return `port`, or any free one for 0. Raises UserError when it cannot be had."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} on {host}: {error.strerror}. Allowed: a port that nothing else uses. "
                "Do: leave the port out to have a free one picked."
            ) from error
        return int(probe.getsockname()[1])
