"""The worker group as it was last announced, and whether it reads this gateway's checkpoint.

The watch updates it twice a second; the services read it. All on the event loop.
"""

from __future__ import annotations

import logging

from albireo.v1 import log_pb2 as log

logger = logging.getLogger(__name__)


class WorkerGroup:
    """What the worker group announces in Redis. It stays known after the group is gone."""

    def __init__(self, fingerprint: str) -> None:
        """``fingerprint``: of the checkpoint that this gateway reads; the group's must be equal."""
        self._fingerprint = fingerprint
        self.info: log.GroupInfo | None = None
        """The last announcement; None before the first."""
        self.mismatch = ""
        """Why no request may go to the group, which reads another checkpoint; else empty."""

    @property
    def simulated(self) -> bool:
        """Whether the group runs a simulated device, whose tokens have no meaning."""
        return self.info is not None and self.info.device == "sim"

    def update(self, info: log.GroupInfo) -> None:
        """Records an announcement, and compares its fingerprint."""
        self.info, before, self.mismatch = info, self.mismatch, ""
        if info.fingerprint != self._fingerprint:
            self.mismatch = (
                f"the worker group's checkpoint (fingerprint {info.fingerprint or 'not announced'}) is not "
                f"this gateway's ({self._fingerprint}): the two need the same config and tokenizer"
            )
            if self.mismatch != before:
                logger.error(self.mismatch)
