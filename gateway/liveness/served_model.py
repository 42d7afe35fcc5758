"""The model as its groups serve it, and whether they read this gateway's checkpoint.

The watch updates it twice a second; the services read it. All on the event loop.
"""

from __future__ import annotations

from albireo.v1 import log_pb2 as log


class ServedModel:
    """What the scheduler writes of its groups in Redis. It stays known while no group is there."""

    def __init__(self, fingerprint: str) -> None:
        """``fingerprint``: of the checkpoint that this gateway reads; the groups' must be equal."""
        self._fingerprint = fingerprint
        self.info: log.ServedModel | None = None
        """As the last group that joined had it; None where none ever has."""
        self.mismatch = ""
        """Why no request may go to the groups, which read another checkpoint; else empty."""

    @property
    def simulated(self) -> bool:
        """Whether a group runs a simulated device, whose tokens have no meaning."""
        return self.info is not None and self.info.simulated

    def update(self, info: log.ServedModel) -> None:
        """Records what was read, and compares its fingerprint."""
        self.info, self.mismatch = info, ""
        if info.fingerprint != self._fingerprint:
            self.mismatch = (
                f"the worker groups' checkpoint (fingerprint {info.fingerprint or 'not announced'}) is not "
                f"this gateway's ({self._fingerprint}): the two need the same config and tokenizer"
            )
