"""API keys: their form, and what is stored of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from albireo.contract import api_keys
from albireo.contract.api_keys import FORM, ApiKey, digest_of, from_bytes, new_key, to_bytes

KEY = ApiKey(digest=bytes(32), tenant="acme", least_priority=0, greatest_priority=100, created_at=1_000)


def test_a_key_has_its_id_in_it_and_256_random_bits_behind() -> None:
    text, key_id = new_key()
    found = FORM.fullmatch(text)
    assert found is not None
    assert found[1] == key_id
    assert api_keys.ID.fullmatch(key_id)
    assert len(bytes.fromhex(text.split("_")[2])) * 8 == 256
    assert len({new_key()[0] for _ in range(100)}) == 100


def test_what_is_stored_is_the_hash_of_the_whole_key() -> None:
    text, _ = new_key()
    assert digest_of(text) == hashlib.sha256(text.encode()).digest()
    stored = to_bytes(replace(KEY, digest=digest_of(text)))
    assert text.split("_")[2].encode() not in stored
    assert digest_of("\udcff")  # what no encoding has is no key, and no error


def test_a_record_comes_back_as_it_was() -> None:
    for key in (KEY, replace(KEY, least_priority=-7, expires_at=2_000, note='the "one" of Ada, ü')):
        assert from_bytes(to_bytes(key)) == key


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tenant": "a b"}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a:b"}, "tenant"),
        ({"least_priority": -101}, "priorities"),
        ({"greatest_priority": 101}, "priorities"),
        ({"least_priority": 5, "greatest_priority": 4}, "priorities"),
        ({"digest": b"short"}, "digest"),
        ({"note": "x" * 201}, "note"),
        ({"note": "two\nlines"}, "note"),
    ],
)
def test_what_no_key_may_be_is_refused_by_its_field(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        replace(KEY, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"1",
        b"[" * 100_000,
        json.dumps({"sha256": "zz", "priorities": [0, 1]}).encode(),
        to_bytes(KEY).replace(b"1000", b"Infinity"),
    ],
)
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (of several decoders)
        from_bytes(data)


def test_a_key_expires_at_its_moment() -> None:
    key = replace(KEY, expires_at=2_000)
    assert [key.expired(now) for now in (1_999.9, 2_000)] == [False, True]
    assert not KEY.expired(1e12)
