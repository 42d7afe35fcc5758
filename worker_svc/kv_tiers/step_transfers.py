"""What one step has to do with KV tiers: the input stage fills it, the step takes it along.

The compute stage waits for what the step reads, the output stage for copies of blocks that it gives away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from albireo.contract.tiers import Contents
from worker_svc.kv_tiers.copies import Copy
from worker_svc.kv_tiers.fetch_job import FetchJob
from worker_svc.kv_tiers.fetching import FetchLane
from worker_svc.kv_tiers.spill_job import SpillJob, SpillState
from worker_svc.kv_tiers.spilling import Spilling
from worker_svc.kv_tiers.step_streams import StepStreams
from worker_svc.model.kv_cache import LayerCache

COPY_SECONDS = 2.0
"""How long a step waits for copies of blocks. What is not copied by then is not spilled."""


@dataclass(frozen=True, slots=True)
class SlotFetches:
    """The fetches of an occupancy that a step is the first to read."""

    incarnation: int
    jobs: tuple[tuple[FetchLane, FetchJob], ...]


class StepTransfers:
    """Of one step."""

    def __init__(self, spilling: Spilling) -> None:
        self.copied: tuple[SpillJob, ...] = ()  # of blocks that change hands: the step waits for these
        self.ended: tuple[Copy, ...] = ()  # likewise, of fetches that have been cancelled
        self.spills: tuple[SpillJob, ...] = ()  # copied while it runs
        self.reads: tuple[SlotFetches, ...] = ()  # in the order of its chunks
        self.streams: StepStreams | None = None  # what its spans read
        self.contents: tuple[Contents, ...] = ()
        self.contents_end = False
        self.wait_ns = 0  # that layers waited
        self._spilling = spilling

    @property
    def empty(self) -> bool:
        work = self.copied or self.ended or self.spills or self.reads or self.streams
        return not (work or self.contents or self.contents_end)

    def start(self) -> None:
        """All steps before this one have been launched: waits for blocks that change hands, begins spills."""
        self._await_copies(self.copied, lambda copy: copy.before_compute())
        for copy in self.ended:
            copy.before_compute()
        if self.spills:
            self._spilling.start(self.spills)
        if self.streams is not None:
            self.streams.start()

    def caches(self, layers: Iterable[LayerCache]) -> Iterator[LayerCache]:
        """Each layer once its part of all that the step fetches is there, or given up."""
        jobs = [found for slot in self.reads for found in slot.jobs]
        step_began = time.monotonic()
        for number, layer in enumerate(layers):
            began = time.monotonic_ns()
            for lane, job in jobs:
                lane.await_layer(job, number, step_began)
            self.wait_ns += time.monotonic_ns() - began
            yield layer

    @property
    def readers(self) -> tuple[int, ...]:
        """Incarnations of the slots that read fetches for the first time, and of those that are streamed."""
        fetched = tuple(slot.incarnation for slot in self.reads)
        if self.streams is None:
            return fetched
        return fetched + tuple(span.incarnation for span in self.streams.spans)

    def missing(self) -> list[bool]:
        """Of each of the ``readers``, whether this rank lacks some of its KV. After the last layer."""
        spans = () if self.streams is None else self.streams.spans
        self.wait_ns += 0 if self.streams is None else self.streams.wait_ns
        for slot in self.reads:
            for _, job in slot.jobs:
                job.order_all()
        fetched = [any(job.failed for _, job in slot.jobs) for slot in self.reads]
        return fetched + [span.failed for span in spans]

    def settle(self) -> None:
        """Output stage: waits until no copy of the step's spills touches blocks."""
        self._await_copies(self.spills, lambda copy: copy.wait())

    def _await_copies(self, jobs: Iterable[SpillJob], finish: Callable[[Copy], None]) -> None:
        until = time.monotonic() + COPY_SECONDS
        for job in jobs:
            if not job.await_copied(until - time.monotonic()):
                self._spilling.drop([job])
            if job.state is SpillState.COPIED:  # it may have become so just now
                finish(job.copy)
