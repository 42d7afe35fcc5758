"""The worker group, as it announces itself. The scheduler service's thread looks at it."""

from __future__ import annotations

import logging

from albireo.contract import codec
from albireo.store.interface import Store
from albireo.v1 import log_pb2 as log

logger = logging.getLogger(__name__)

MISSES = 4
"""How many looks in a row, four a second, must find no group: where Redis stood still all leases ran out, and
the scheduler may have taken its own again up to a second before a group on a busy machine does."""


class GroupWatch:
    """Looks at the group's key."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._missed = 0  # looks in a row

    def look(self, known: log.GroupInfo | None) -> log.GroupInfo | None:
        """The group that is there now; the ``known`` one until it has been missed often enough.

        An announcement that cannot be read is none. Raises RedisError.
        """
        [data] = self._store.get([self._key])
        found = None
        if data is not None:
            try:
                found = codec.group_from_bytes(data)
            except ValueError as error:
                logger.warning("the announcement of the worker group cannot be read: %s", error)
        self._missed = 0 if found is not None else self._missed + 1
        return known if 0 < self._missed < MISSES else found
