"""How busy the groups of one backend are, by which a gateway chooses among several.

The watch updates it twice a second, submissions count themselves; all on the event loop.
"""

from __future__ import annotations

import logging

from google.protobuf.message import DecodeError

from albireo.v1 import control_pb2 as control

logger = logging.getLogger(__name__)


class BackendLoad:
    """What the scheduler published last, and what this gateway has sent since."""

    def __init__(self) -> None:
        self._data: bytes | None = None
        self._published = control.Load()
        self._sent = 0

    @property
    def requests(self) -> int:
        """How many wait or run."""
        return self._published.waiting + self._published.running + self._sent

    @property
    def per_slot(self) -> float:
        """``requests`` for each slot; infinite where there is no slot."""
        slots = self._published.slots_total
        return self.requests / slots if slots else float("inf")

    def update(self, data: bytes | None) -> None:
        """``data``: the ``Load`` as it is in the store; None where no scheduler publishes one."""
        if data == self._data:
            return
        self._data, self._sent = data, 0
        try:
            self._published = control.Load.FromString(data or b"")
        except DecodeError as error:
            logger.warning("the published load cannot be read: %s", error)
            self._published = control.Load()

    def sent(self, branches: int) -> None:
        """A request of so many branches was submitted."""
        self._sent += branches
