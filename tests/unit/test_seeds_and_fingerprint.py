"""Laws of randomness and of addresses: a key is a stream, a value has one spelling and one hash."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showhow.fingerprint import canonical_json, file_sha256, fingerprint
from showhow.seeds import rng_for, seed_for

PARTS = st.one_of(st.integers(), st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), max_size=5))
KEYS = st.lists(PARTS, max_size=4).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(KEYS, KEYS)
def test_equal_keys_and_no_others_have_equal_seeds(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (seed_for(*one) == seed_for(*other)) == (one == other)
    assert 0 <= seed_for(*one) < 2**63


def test_parts_are_typed_and_kept_apart() -> None:
    keys: list[tuple[str | int, ...]] = [("1", 2), (1, "2"), ("12",), (12,), ("1", "2"), (1, 2), (), ("",)]
    assert len({seed_for(*key) for key in keys}) == len(keys)


def test_a_seed_is_the_same_on_every_machine_and_for_ever() -> None:
    # printf 'str:order\x1fint:0\x1fint:1' | sha256sum, the first 8 bytes, halved
    assert seed_for("order", 0, 1) == 8639817837933930023
    assert rng_for("order", 0, 1).random() == rng_for("order", 0, 1).random()


def test_streams_of_neighbouring_keys_share_nothing() -> None:
    draws = [{rng.getrandbits(64) for _ in range(100)} for rng in (rng_for("x", seed) for seed in range(20))]
    assert len(set().union(*draws)) == 2000


@given(JSON)
def test_the_canonical_spelling_reads_back_and_is_its_own(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(max_size=3), JSON, min_size=2, max_size=4))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_json_cannot_say_has_no_fingerprint(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(value)


def test_a_fingerprint_is_16_hexadecimal_digits() -> None:
    assert fingerprint({"a": [1, True, None, "ü"]}) == "cbde1c02134ecde5"


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
