"""The only source of randomness. A stream is named by a key; keys are hashed, never added.

Adding (`seed + index`) makes neighbouring seeds share nearly all their draws; hashing gives every key its own stream.
"""

import hashlib
import random

Key = str | int


def seed_for(*key: Key) -> int:
    """Return a 63-bit seed for `key`. Parts are typed, so ("1", 2) and (1, "2") and ("12",) all differ."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng_for(*key: Key) -> random.Random:
    """Return an independent stream for `key`; the same key gives the same stream on every machine."""
    return random.Random(seed_for(*key))
