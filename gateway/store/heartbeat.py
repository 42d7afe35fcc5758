"""The heartbeat by which the other tiers know that this gateway follows its requests.

The watch renews it twice a second; the reader of the results asks whether it may have expired.
"""

from __future__ import annotations

from albireo.runtime.clock import Clock
from albireo.store.connection import RECONNECT_SECONDS
from gateway.store.interface import GatewayStore

TTL_SECONDS = RECONNECT_SECONDS + 2
"""After so long without a heartbeat a gateway's requests are cancelled and their ids are free. Longer than a
gateway retries where the store does not answer: that must not look like a death."""


class Heartbeat:
    """Whether this gateway's heartbeat may have expired meanwhile."""

    def __init__(self, store: GatewayStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._confirmed_at = 0.0  # by the clock: when the last confirmed one was sent

    @property
    def lapsed(self) -> bool:
        """Whether it may have expired since: then others take this gateway for dead."""
        return self._clock.now() - self._confirmed_at > TTL_SECONDS

    async def start(self) -> None:
        """The first heartbeat. Raises RedisError."""
        sent_at = self._clock.now()
        await self._store.start_heartbeat(TTL_SECONDS)
        self._confirmed_at = sent_at

    def confirm(self, kept: bool, sent_at: float) -> bool:
        """Records that the one sent at ``sent_at`` (by the clock) was answered; ``kept`` as in ``Liveness``.
        Returns False if it had expired before."""
        kept = kept and not self.lapsed
        self._confirmed_at = sent_at
        return kept

    async def stop(self) -> None:
        """Removes it: this gateway follows no requests any more. Raises RedisError."""
        await self._store.stop_heartbeat()
