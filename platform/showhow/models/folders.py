"""Where a pretrained model is on this disk, and the JSON files of its folder. Pure; nothing is downloaded."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any


def local_folder(name: str) -> Path | None:
    """Return the folder of a pretrained model: a local folder, or its snapshot in the cache of the Hugging Face hub
    (https://huggingface.co/docs/huggingface_hub/guides/manage-cache); None where it is not on this disk."""
    if Path(name).is_dir():
        return Path(name)
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cached = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    entry = cached / f"models--{name.replace('/', '--')}"
    try:
        snapshot = entry / "snapshots" / (entry / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return snapshot if snapshot.is_dir() else None


def json_in(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None where there is no readable one."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _parsed(path, stat.st_mtime_ns, stat.st_size)


def of_text(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that is about text, where the model takes images too."""
    part = settings.get("text_config")
    return part if isinstance(part, dict) else settings


@cache  # called for every trial of a study
def _parsed(path: Path, changed_at: int, size: int) -> dict[str, Any] | None:  # noqa: ARG001 - a changed file is read again
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
