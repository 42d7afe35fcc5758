"""A group's place among those that the scheduler can lead: rank 0 takes it, keeps it and gives it back."""

from __future__ import annotations

from albireo.contract.keys import Keys
from albireo.store.interface import Fenced, Store
from albireo.v1 import log_pb2 as log


class Registration:
    """The announcement under the group's lease, and the entry among the registered groups."""

    def __init__(self, store: Store, keys: Keys, info: log.GroupInfo, *, ttl: float) -> None:
        """Announces and registers. ``ttl``: seconds for which the announcement stays without a renewal."""
        self._store = store
        self._incarnation = info.incarnation
        key = keys.group(info.incarnation)
        self._lease = store.lease(key, info.SerializeToString(), ttl=ttl)
        if not self._lease.acquire():
            raise Fenced(f"{key}: another has announced itself by this incarnation")
        store.register(info.incarnation)

    def renew(self, *, opened: bool) -> None:
        """``opened``: a scheduler has led the group. Before that a store that has lost everything may have
        lost the registration; after it, the lease is lost as well. Raises Fenced where it is."""
        self._lease.renew()
        if not opened:
            self._store.register(self._incarnation)

    def leave(self) -> None:
        """The group takes no more work, and has appended its last result."""
        self._store.leave(self._incarnation)

    def release(self) -> None:
        """Gives the lease back: of a group that has not left, its death."""
        self._lease.release()
