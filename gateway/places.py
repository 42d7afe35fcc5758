"""The bound on the calls that stream, which are those that stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.refusal import exhausted


class Places:
    """Of these a gateway has ``max_streams``. Calls that are answered at once need none: a full gateway
    still tells its health and its load."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place, until the block's end. Raises Refusal where all are taken."""
        if self._taken >= self._most:
            raise exhausted(f"this gateway serves {self._most} streams at once (max_streams)")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
