"""Canonical JSON, and the hash of WHAT is computed: never of where, when or by how many workers."""

import hashlib
import json
from pathlib import Path

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def canonical_json(value: Json) -> str:
    """Return the only text of a value: sorted keys, no blanks. NaN and infinity are refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Json) -> str:
    """Return the hash of `value`: 16 hexadecimal digits (64 bits)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def placeless(value: Json) -> Json:
    """Return a definition without its `path` entries: a file is identified by its hash, not by its place."""
    if isinstance(value, dict):
        return {key: placeless(inner) for key, inner in value.items() if key != "path"}
    return [placeless(inner) for inner in value] if isinstance(value, list) else value


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
