"""Runs a command until it ends or until whoever started this ends, even by SIGKILL. Started by server.py as a script.

The starter holds the other end of standard input; when that pipe closes, the whole process group is told to end.
"""

import os
import signal
import subprocess
import sys
import threading


def _end_with_the_starter() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    sys.exit(subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL))
