"""The steps of the results log, as this gateway sees them pass: counted, and handed to who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import RESULTS_LAG
from albireo.telemetry.step_times import StepWindow
from albireo.v1 import control_pb2 as control
from gateway.telemetry.step_stats import StepStats

MAX_PENDING = 1024
"""Records that wait for a watcher; one that reads too slowly misses the ones after."""
MAX_WATCHERS = 16


class StepFeed:
    """Fed with every step's record."""

    def __init__(self, telemetry: Telemetry = OFF) -> None:
        self.stats = StepStats()
        self._lag = telemetry.folded(RESULTS_LAG)
        self._window = StepWindow()
        self._watchers: set[asyncio.Queue[control.StepRecord | None]] = set()

    def put(self, record: control.StepRecord) -> None:
        times = self._window.push(record)
        if times is not None:
            self.stats.add(times)
        self.stats.waste(record.wasted_rows)
        self._lag.add(max(0, record.handed_out - record.timing.sampling_end) / 1e9)
        for queue in self._watchers:
            if not queue.full():
                queue.put_nowait(record)

    def close(self) -> None:
        """Nothing more comes: ends all that watch."""
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def watch(self) -> AsyncGenerator[control.StepRecord, None]:
        """Records from now on, until the caller leaves or ``close``. Raises OverflowError at too many."""
        if len(self._watchers) >= MAX_WATCHERS:
            raise OverflowError(f"{MAX_WATCHERS} clients watch already")
        queue: asyncio.Queue[control.StepRecord | None] = asyncio.Queue(MAX_PENDING)
        self._watchers.add(queue)
        try:
            while (record := await queue.get()) is not None:
                yield record
        finally:
            self._watchers.discard(queue)
