"""MLflow's own server as a child process, for people to look at a study. It listens on this machine only."""

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
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # several more processes, for features we do not use
    "PYTHONSAFEPATH": "1",  # modules in the current folder are not imported
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
    loopback without `allow_remote` (the server requires no password), and when the server does not start.
    """
    if is_server(uri):
        raise UserError(f"{redact(uri)} already is a server. Allowed: a database address. Do: open it in the browser.")
    if host not in LOOPBACK and not allow_remote:
        raise UserError(
            f"host {host}: anyone who reaches it could read and delete all runs, as the server requires no password. "
            f"Allowed: {', '.join(LOOPBACK)}. Do: use 127.0.0.1 and an SSH tunnel, or allow remote access explicitly."
        )
    port = _free_port(host, port or 0)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with tempfile.TemporaryFile() as output:
        server = UiServer(address, _start(uri, host, port, output))
        try:
            _wait_until_healthy(server, output)
        except BaseException:
            server.stop()
            raise
    return server


def _start(uri: str, host: str, port: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", str(Path(__file__).with_name("until_orphaned.py"))]
    command += [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    if (artifacts := artifact_location(uri)) is not None:
        command += ["--artifacts-destination", artifacts]
    # The address is passed in the environment: a command line, and a password in it, can be read by every user (ps).
    environment = {**os.environ, **_SETTINGS, "MLFLOW_BACKEND_STORE_URI": uri}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
    )


def _wait_until_healthy(server: UiServer, output: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server.address}/health", timeout=2) as answer:  # noqa: S310 - our own http address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    output.seek(0)
    last = redact(output.read().decode(errors="replace").strip())[-600:]
    raise UserError(
        f"the MLflow server did not start at {server.address}. It said: {last or 'nothing'}. Allowed: a free port and "
        "a database that MLflow can read. Do: name another port, or correct the tracking address."
    )


def _free_port(host: str, port: int) -> int:
    """Return `port`, or any free one for 0. Raises UserError when it is not available."""
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
