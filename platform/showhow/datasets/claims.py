"""Claims: when several processes, on machines that share a disk, need the same result, one makes it at a time.

A claim is a small file next to the result. Its owner changes it every few seconds. A claim that has not changed for a
while, by the clock of a waiting process, expires; that of a dead process of this machine expires immediately.
"""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

BEAT_SECONDS, EXPIRY_SECONDS = 5.0, 60.0
_LOOK_SECONDS = 0.2


class Claim:
    """A claim to make the result at a path. As a context manager it is released at its end."""

    def __init__(self, path: Path, expiry_seconds: float = EXPIRY_SECONDS) -> None:
        self._file = path.with_name(f".{path.name}.claim")
        self._expiry_seconds = expiry_seconds
        self._owner = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._seen, self._since = b"", time.monotonic()
        self._stopped = threading.Event()
        self._heart: threading.Thread | None = None

    def attempt(self) -> bool:
        """Return whether the claim is now ours. Call it again while another has it: an expired claim is removed."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if self._is_expired():
                self._remove_expired()
            return False
        os.close(descriptor)
        self._beat()
        self._heart = threading.Thread(target=self._keep_beating, name="showhow-claim", daemon=True)
        self._heart.start()
        return True

    def _remove_expired(self) -> None:
        """Move an expired claim away, unless another process has done so or has made a new claim."""
        with suppress(OSError):
            if self._file.read_bytes() == self._seen:
                expired = self._file.with_name(f"{self._file.name}.{self._owner}")
                self._file.rename(expired)
                expired.unlink()

    def release(self) -> None:
        """Release the claim, if it is ours."""
        if self._heart is not None:
            self._stopped.set()
            self._heart.join()
            self._heart = None
            self._file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _keep_beating(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            with suppress(OSError):  # a full or missing disk raises an error where the result is written
                self._beat()

    def _beat(self) -> None:
        content = {"host": platform.node(), "process": os.getpid(), "beat": time.time_ns()}
        self._file.write_text(json.dumps(content), encoding="utf-8")

    def _is_expired(self) -> bool:
        try:
            content = self._file.read_bytes()
        except OSError:
            return False  # it was just removed
        if content != self._seen:
            self._seen, self._since = content, time.monotonic()
        return _is_of_a_dead_process(content) or time.monotonic() > self._since + self._expiry_seconds


@contextmanager
def claimed(path: Path, made: Path) -> Iterator[bool]:
    """Wait until the result at `path` exists, which the file `made` shows, or is ours to make; yield whether it is
    ours."""
    with Claim(path) as claim:
        while not made.exists():
            if claim.attempt():
                break
            time.sleep(_LOOK_SECONDS)
        yield not made.exists()


def _is_of_a_dead_process(content: bytes) -> bool:
    try:
        owner = json.loads(content)
        if owner["host"] != platform.node():
            return False
        os.kill(int(owner["process"]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        return False
    return False
