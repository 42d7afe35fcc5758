"""The fetch of some blocks of one slot: its tier's thread copies, the compute stage waits layer by layer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from albireo.contract.tiers import Fetch
from worker_svc.kv_tiers.copies import Copy
from worker_svc.kv_tiers.spill_job import SpillJob


class FetchJob:
    """It is over when it has failed, for whichever reason, or when all layers are there."""

    def __init__(
        self,
        fetch: Fetch,
        layers: int,
        *,
        held: dict[int, tuple[SpillJob, int]],
        after: Sequence[SpillJob],
    ) -> None:
        """``held``: positions whose frames are still to be written, and the buffers that have them.
        ``after``: spills that may still read the blocks."""
        self.fetch = fetch
        self.held = held
        self.after = tuple(after)
        self.reason = ""  # of its failure
        self._layers = layers
        self._changed = threading.Condition()
        self._ready = 0  # layers
        self._copies: list[tuple[int, Copy]] = []  # with the first layer of each
        self._ordered = 0  # of them: those that compute waits for; compute stage only

    @property
    def failed(self) -> bool:
        return bool(self.reason)

    @property
    def over(self) -> bool:
        return bool(self.reason) or self._ready == self._layers

    def copy(self, first: int, launch: Callable[[], Copy]) -> bool:
        """The tier's thread: launches a copy into the blocks, unless the job is over; returns whether it did.

        ``first``: the first layer that it brings.
        """
        with self._changed:
            if self.reason:
                return False
            self._copies.append((first, launch()))
            return True

    def ready(self, layers: int) -> None:
        """The tier's thread: the first ``layers`` layers of all blocks are there."""
        with self._changed:
            self._ready = layers
            self._changed.notify_all()

    def fail(self, reason: str) -> bool:
        """From now on nothing is written to the blocks. Any thread. False if it was over before."""
        with self._changed:
            if self.over:
                return False
            self.reason = reason
            self._changed.notify_all()
            return True

    def launched(self) -> list[Copy]:
        """Copies that may still write to the blocks when the job is over."""
        with self._changed:
            return [copy for _, copy in self._copies]

    def await_layer(self, layer: int, until: float) -> bool:
        """Compute stage: its stream may read this layer when the call returns True; False: not in time, or it
        failed. ``until``: of ``time.monotonic``."""
        if self._ready <= layer:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._ready > layer or bool(self.reason), max(0.0, until - time.monotonic())
                )
        if self.reason or self._ready <= layer:
            return False
        self._order(layer)
        return True

    def order_all(self) -> None:
        """Compute stage: its stream goes on when no copy of the job writes to the blocks any more."""
        self._order(self._layers)

    def _order(self, layer: int) -> None:
        while self._ordered < len(self._copies) and self._copies[self._ordered][0] <= layer:
            self._copies[self._ordered][1].before_compute()
            self._ordered += 1
