"""Runs a command until it ends or until the starting process ends, even by SIGKILL. Started by server.py as a script.

The starting process has the other end of standard input; when that pipe closes, the process group gets SIGTERM. This
process ends only when every process of the command has ended, so that waiting for it is enough.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

_GRACE_SECONDS = 5.0
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2): orphaned grandchildren become ours, so that we can wait for them


def _end_with_the_starter() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _wait_for_all(child: "subprocess.Popen[bytes]") -> int:
    status = child.wait()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return status


def _main(command: list[str]) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the group gets it too: wait for the others
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    return _wait_for_all(child)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
