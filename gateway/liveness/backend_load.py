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
    def per_slot(self) -> float:
        """Requests that wait or run, for each slot; infinite where there is no slot."""
        load = self._published
        if not load.slots_total:
            return float("inf")
        return (load.waiting + load.running + self._sent) / load.slots_total

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
