"""A keyspace in memory with one group whose logs are open, as its scheduler has them."""

from __future__ import annotations

from albireo.contract.keys import Keys
from albireo.store.interface import GroupOpening
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore

KEYS = Keys("m")
GROUP = "incarnation"
LEASE = b"scheduler"


class OpenedGroup:
    """Its scheduler's side."""

    def __init__(self, clock: VirtualClock, group: str = GROUP) -> None:
        """``group``: its incarnation."""
        self._group = group
        self.space = Keyspace(clock)
        self.store = self.open_store()
        assert self.store.lease(KEYS.lease, LEASE, ttl=3600).acquire()
        self._notices = 0
        self.open()

    def open_store(self) -> MemoryStore:
        return MemoryStore(self.space, KEYS)

    def open(self) -> int:
        """Opens the group in the next epoch, which is returned."""
        self.epoch, _ = self.store.open_epoch(lease_value=LEASE)
        self.store.open_group(self._opening, notice=self._notice(), lease_value=LEASE)
        return self.epoch

    def close(self, reason: str) -> None:
        self.store.close_group(self._opening, reason, notice=self._notice(), lease_value=LEASE)

    @property
    def _opening(self) -> GroupOpening:
        return GroupOpening(self.epoch, self._group, "g0")

    def _notice(self) -> int:
        self._notices += 1
        return self._notices
