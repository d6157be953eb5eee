"""Files and folders that appear complete or not at all: written under a name that no other process uses, then moved.

Several processes may write the same thing at once, on several machines that share a disk: the bytes are the same, so it
does not matter whose move comes last.
"""

import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = ".partial"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; at the end move the file to `path`, after an error remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _own_name(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path, last_file: str) -> Iterator[Path]:
    """Yield an empty folder to write to; at the end move it to `folder`, after an error remove it.

    `last_file` is the file that the caller writes last. An existing `folder` without it was interrupted and is
    replaced; one with it was finished by another process meanwhile and is left. Partial folders of dead processes of
    this machine are removed."""
    for abandoned in folder.parent.glob(f".{folder.name}.{platform.node()}-*{_PARTIAL}"):
        if not _lives(int(abandoned.name.removeprefix(f".{folder.name}.{platform.node()}-").partition("-")[0])):
            shutil.rmtree(abandoned, ignore_errors=True)
    partial = _own_name(folder)
    partial.mkdir(parents=True)
    try:
        yield partial
        _move_folder(partial, folder, last_file)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move_folder(partial: Path, folder: Path, last_file: str) -> None:
    if folder.is_dir() and not (folder / last_file).exists():
        interrupted = _own_name(folder)
        folder.rename(interrupted)  # at once, so that nobody sees it half removed
        shutil.rmtree(interrupted)
    try:
        partial.rename(folder)
    except OSError:  # another process's folder is there
        if not (folder / last_file).exists():
            raise


def _own_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
