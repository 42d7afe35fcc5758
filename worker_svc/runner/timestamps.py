"""Timestamps of the parts of a step, on the host's clock, taken without waiting for the device.

The compute stage records them, the output stage reads them.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch

from albireo.runtime.clock import SYSTEM_CLOCK, Clock

RECALIBRATE_NS = 1_000_000_000
"""CUDA gives the time between two events as a float of milliseconds: kept short, it stays precise."""

CALIBRATIONS = 4
"""The host may lose the interpreter to another stage while it waits, so once is not enough."""


class Timestamps(Protocol):
    """Of one step. ``record`` is called by the compute stage, ``nanoseconds`` once the step is done."""

    def record(self) -> None: ...

    def nanoseconds(self) -> list[int]:
        """Of the Unix clock, in the order of the records."""
        ...


class HostTimestamps:
    """Where the compute stage itself computes."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._found: list[int] = []

    def record(self) -> None:
        self._found.append(self._clock.time_ns())

    def nanoseconds(self) -> list[int]:
        return self._found


class CudaClock:
    """Relates events of a device to the host's clock. All but ``timestamps`` belongs to the output stage."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._base, self._base_ns = self._calibrate()
        self._latest_ns = 0

    def timestamps(self) -> CudaTimestamps:
        return CudaTimestamps(self)

    def nanoseconds(self, event: torch.cuda.Event) -> int:
        """When an event that is done happened; asked for in the order of the events.

        An event may lie before the base: that one is moved while steps are on their way.
        """
        found = self._base_ns + round(self._base.elapsed_time(event) * 1e6)
        # Two calibrations differ by microseconds: time must not run backwards where they meet.
        self._latest_ns = max(self._latest_ns, found)
        return self._latest_ns

    def recalibrate(self) -> None:
        """Off the step's path; the stream is idle, so this waits for next to nothing."""
        if time.time_ns() - self._base_ns > RECALIBRATE_NS:
            self._base, self._base_ns = self._calibrate()

    def _calibrate(self) -> tuple[torch.cuda.Event, int]:
        """The event whose time the host knows best: of a few, the one that it waited for the least."""
        tries = []
        for _ in range(CALIBRATIONS):
            event = torch.cuda.Event(enable_timing=True)
            before = time.time_ns()
            event.record(self._stream)
            event.synchronize()
            tries.append((time.time_ns() - before, before, event))
        waited, before, event = min(tries, key=lambda found: found[0])
        return event, before + waited // 2


class CudaTimestamps:
    """Events on the stream that runs the step."""

    def __init__(self, clock: CudaClock) -> None:
        self._clock = clock
        self._events: list[torch.cuda.Event] = []

    def record(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def nanoseconds(self) -> list[int]:
        self._clock.recalibrate()  # first: after an idle hour the base is that old
        return [self._clock.nanoseconds(event) for event in self._events]
