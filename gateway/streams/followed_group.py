"""The results of one group, as far as they have been read. The results reader has one of each group.

On the event loop.
"""

from __future__ import annotations

import logging

from albireo.contract import codec
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log

logger = logging.getLogger(__name__)


class Gap(Exception):
    """Entries are gone that have not been read."""


class FollowedGroup:
    """From the opening of a group in one epoch, or from where reading began, to its closing."""

    def __init__(self, group: str, last: EntryId) -> None:
        """``group``: incarnation; ``last``: id of the last entry that counts as read."""
        self.last = last
        self.ending = False
        """Whether its closing is known from the notices: the next read must find it in the results."""
        self._group = group
        self._broken = False

    def take(self, entry_id: EntryId, data: bytes) -> log.ResultEntry | None:
        """The next entry, unless it does not count. Raises Gap where entries before it are gone.

        Behind an entry that cannot be read none counts until the closing: the scheduler cannot read it
        either, closes the group, and has its requests go on in another from what was reported before.
        """
        last, self.last = self.last, entry_id
        try:
            entry = codec.result_from_bytes(data)
        except ValueError as error:
            if not self._broken:
                logger.error("result %s of group %s cannot be read: %s", entry_id, self._group, error)
            self._broken = True
            return None
        if entry.WhichOneof("entry") == "open":
            self._broken = False
        elif entry.WhichOneof("entry") == "result":
            if self._broken:
                return None
            if entry_id != EntryId(last.epoch, last.step + 1):
                raise Gap(f"results {last} to {entry_id} of group {self._group} are gone, unread")
        return entry
