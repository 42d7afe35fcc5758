"""Why a KV tier cannot be opened."""

from __future__ import annotations


class TierError(ValueError):
    """A tier that cannot be as its options ask for; the message names the option."""
