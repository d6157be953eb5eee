"""What a person types to call this command again: its path, unless it is found without."""

import os
import shutil
import sys


def command_name() -> str:
    """Return `showhow`, or the path by which it was called where nothing else would find it."""
    called = sys.argv[0]
    return called if os.path.basename(called) == "showhow" and shutil.which("showhow") is None else "showhow"
