"""API keys and a keyring for tests, by clocks that the test moves."""

from __future__ import annotations

from typing import Any

from albireo.contract.api_keys import ApiKey, digest_of
from gateway.calls.callers import Keyring, Metadata


class Clocks:
    """Both clocks of a keyring."""

    def __init__(self) -> None:
        self.wall, self.now = 1_000.0, 0.0


def keyring(clocks: Clocks, *, is_open: bool = False) -> Keyring:
    return Keyring(is_open=is_open, wall=lambda: clocks.wall, now=lambda: clocks.now)


def record(text: str, **fields: Any) -> ApiKey:
    own = {"tenant": "acme", "least_priority": 0, "greatest_priority": 100, "created_at": 0, **fields}
    return ApiKey(digest=digest_of(text), **own)


def headers(text: str) -> Metadata:
    return (("user-agent", "x"), ("authorization", f"Bearer {text}"))
