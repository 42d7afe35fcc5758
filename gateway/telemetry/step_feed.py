"""The step records of this gateway: counted in histograms and sent to clients of ``WatchSteps``.

The results reader adds records (through the gateway), the ``Control`` service reads; all on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import RESULTS_LAG
from albireo.telemetry.step_times import StepWindow
from albireo.v1 import control_pb2 as control
from gateway.telemetry.step_stats import StepStats

MAX_PENDING = 1024
"""Records that wait for one watcher; a watcher that reads too slowly misses those that follow."""
MAX_WATCHERS = 16


class StepFeed:
    """Gets the record of every step, those of each group in order."""

    def __init__(self, telemetry: Telemetry = OFF) -> None:
        self.stats = StepStats()
        self._lag = telemetry.folded(RESULTS_LAG)
        self._window = StepWindow()
        self._watchers: set[asyncio.Queue[control.StepRecord | None]] = set()

    def put(self, record: control.StepRecord) -> None:
        """Counts a record and queues it for every watcher."""
        times = self._window.push(record)
        if times is not None:
            self.stats.add(times)
        if record.timing.kv_wait:
            self.stats.wait_for_kv(record.timing.kv_wait / 1e9)
        self.stats.waste(record.wasted_rows)
        self._lag.add(max(0, record.handed_out - record.timing.sampling_end) / 1e9)
        for queue in self._watchers:
            if not queue.full():
                queue.put_nowait(record)

    def close(self) -> None:
        """Ends all watchers: there are no more records."""
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def watch(self) -> AsyncGenerator[control.StepRecord, None]:
        """Records from now until ``close``. Raises OverflowError if there are MAX_WATCHERS already."""
        if len(self._watchers) >= MAX_WATCHERS:
            raise OverflowError(f"{MAX_WATCHERS} clients watch already")
        queue: asyncio.Queue[control.StepRecord | None] = asyncio.Queue(MAX_PENDING)
        self._watchers.add(queue)
        try:
            while (record := await queue.get()) is not None:
                yield record
        finally:
            self._watchers.discard(queue)
