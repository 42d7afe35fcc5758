"""API keys: their form, and what is stored of each. Plain data.

``albireo keys`` makes them and gateways check them. A key reads ``alb_<id>_<secret>``: the id is public and
names the record, the secret is 256 random bits. A record has the SHA-256 of the whole key: who reads the
store has no key. A fast hash without a salt is enough for a secret that cannot be guessed: NIST SP 800-63B,
5.1.2.2, asks for an approved one-way function from 112 bits of entropy on, and for a salt and a slow function
below that.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from albireo.contract.bounds import IDENTIFIER, MAX_PRIORITY

FORM: Final = re.compile(r"alb_([0-9a-f]{16})_[0-9a-f]{64}")
"""A key; its group is the id."""
ID: Final = re.compile(r"[0-9a-f]{16}")
DIGEST_BYTES: Final = 32
MAX_NOTE: Final = 200
"""Most characters of a note."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is stored of a key: whose it is, and what it permits. Times: seconds since the Unix epoch."""

    digest: bytes  # of the whole key
    tenant: str
    least_priority: int  # the earliest in the queue that it permits
    greatest_priority: int
    created_at: int
    expires_at: int | None = None  # None: never
    note: str = ""  # for people

    def __post_init__(self) -> None:
        """Raises ValueError that names the field."""
        if len(self.digest) != DIGEST_BYTES:
            raise ValueError(f"digest: {len(self.digest)} bytes, not {DIGEST_BYTES}")
        if not IDENTIFIER.fullmatch(self.tenant):
            raise ValueError(f"tenant: {self.tenant!r} is not 1 to 64 characters of [A-Za-z0-9._-]")
        if not -MAX_PRIORITY <= self.least_priority <= self.greatest_priority <= MAX_PRIORITY:
            found = f"{self.least_priority} to {self.greatest_priority}"
            raise ValueError(f"priorities: {found} is no range within -{MAX_PRIORITY} to {MAX_PRIORITY}")
        if len(self.note) > MAX_NOTE or not (self.note == "" or self.note.isprintable()):
            raise ValueError(f"note: must be at most {MAX_NOTE} printable characters")

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at


def new_key() -> tuple[str, str]:
    """A new random key, and its id."""
    key_id = secrets.token_hex(8)
    return f"alb_{key_id}_{secrets.token_hex(32)}", key_id


def digest_of(key: str) -> bytes:
    """What is stored in place of a key: 32 bytes. Any text has one."""
    return hashlib.sha256(key.encode(errors="replace")).digest()


def to_bytes(key: ApiKey) -> bytes:
    """A record as it is stored: a JSON object."""
    fields = {
        "sha256": key.digest.hex(),
        "tenant": key.tenant,
        "priorities": [key.least_priority, key.greatest_priority],
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "note": key.note,
    }
    return json.dumps(fields).encode()


def from_bytes(data: bytes) -> ApiKey:
    """Raises ValueError for what is no record."""
    try:
        fields: Mapping[str, Any] = json.loads(data)
        least, greatest = map(int, fields["priorities"])
        expires_at = fields["expires_at"]
        return ApiKey(
            digest=bytes.fromhex(fields["sha256"]),
            tenant=str(fields["tenant"]),
            least_priority=least,
            greatest_priority=greatest,
            created_at=int(fields["created_at"]),
            expires_at=None if expires_at is None else int(expires_at),
            note=str(fields["note"]),
        )
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a record of an API key: {error!r}") from None
