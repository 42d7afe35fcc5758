"""Fetches from one tier: a thread that reads ranges of layers, checks them and copies them into blocks.

The first layers come alone, so that compute can begin; later ones in larger pieces.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from albireo.contract.tiers import Fetch
from worker_svc.kv_tiers.copies import DONE, Copies, Copy
from worker_svc.kv_tiers.fetch_job import FetchJob
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.limits import FETCH_SECONDS, MOST_LAYERS, MOST_SECONDS, layer_ranges
from worker_svc.kv_tiers.record import TransferRecord
from worker_svc.kv_tiers.spill_job import SpillJob
from worker_svc.kv_tiers.spilling import Spilling

logger = logging.getLogger(__name__)

BUFFER_BYTES = 8 << 20
BUFFERS = 2
"""One is read into while the other is copied to the device."""
DETAILS = {
    "late": "it did not bring blocks in time",
    "refused": "it does not answer",
    "error": "blocks could not be fetched",
}
"""Why fetches fail as a whole, for the log."""


@dataclass(slots=True)
class _Buffer:
    """What the tier is read into, and the last copy out of it."""

    memory: Tensor
    copy: Copy = DONE


class FetchLane:
    """The fetches from one tier, in their order."""

    def __init__(
        self,
        number: int,
        tier: Tier,
        copies: Copies,
        layout: KvLayout,
        spilling: Spilling,
        record: TransferRecord,
    ) -> None:
        self._number = number
        self._tier = tier
        self._copies = copies
        self._layout = layout
        self._spilling = spilling
        self._record = record
        self._size = max(BUFFER_BYTES, MOST_LAYERS * layout.part_bytes)
        shape = (BUFFERS, self._size // layout.dtype.itemsize)
        self._buffers = [_Buffer(memory) for memory in copies.buffer(shape, layout.dtype)]
        self._jobs: queue.SimpleQueue[FetchJob | None] = queue.SimpleQueue()
        self._live: dict[FetchJob, None] = {}  # in their order; removed by the thread alone
        self._now: FetchJob | None = None
        self._stuck_with: FetchJob | None = None
        self._progress = 0.0  # when the tier brought something last, of time.monotonic
        self._thread = threading.Thread(target=self._run, name=f"kv-fetch-{tier.name}", daemon=True)
        self._thread.start()

    @property
    def stuck(self) -> bool:
        """Whether the thread has the same job since a step waited in vain: the tier does not answer."""
        return self._now is not None and self._now is self._stuck_with

    def submit(self, fetch: Fetch, after: Sequence[SpillJob]) -> FetchJob:
        """Input stage. The copy begins at once, unless the tier does not answer."""
        if self.stuck:  # nothing is to wait behind it, nor keep buffers
            job = FetchJob(fetch, self._layout.layers, held={}, after=())
            self.fail(job, "refused")
            return job
        held = self._spilling.hold(self._number, fetch.frames)
        job = FetchJob(fetch, self._layout.layers, held=held, after=after)
        self._live[job] = None
        self._jobs.put(job)
        return job

    def fail(self, job: FetchJob, reason: str) -> None:
        """Any thread. ``reason``: of ``DETAILS``."""
        if job.fail(reason):
            self._tier.faults.add(reason, DETAILS[reason], len(job.fetch.blocks))

    def cancel(self, job: FetchJob) -> list[Copy]:
        """Input stage: after this nothing is written to the blocks, but by the copies that it returns."""
        job.fail("cancelled")
        return job.launched()

    def cancel_all(self) -> None:
        for job in list(self._live):
            self.cancel(job)

    def await_layer(self, job: FetchJob, layer: int, began: float) -> None:
        """Compute stage: waits as long as the tier brings anything, for this job or for those before it. If
        not, the job fails; at once if the tier does not answer.

        ``began``: of ``time.monotonic``, when the step began to wait.
        """
        while not job.await_layer(layer, self._until(began)) and not job.failed:
            if (now := time.monotonic()) >= self._until(began):
                if now < began + MOST_SECONDS:
                    self._stuck_with = self._now
                self.fail(job, "late")

    def _until(self, began: float) -> float:
        if self.stuck:
            return 0.0
        return min(began + MOST_SECONDS, max(began, self._progress) + FETCH_SECONDS)

    def close(self, seconds: float) -> None:
        self.cancel_all()
        self._jobs.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        torch.set_num_threads(1)
        turn = cycle(self._buffers)
        while (job := self._jobs.get()) is not None:
            self._now = job
            try:
                self._fetch(job, turn)
            except Exception:
                logger.exception("KV blocks could not be fetched from the tier %s", self._tier.name)
                self.fail(job, "error")
            self._spilling.let_go(spill for spill, _ in job.held.values())
            self._now = None
            self._live.pop(job, None)

    def _fetch(self, job: FetchJob, turn: Iterator[_Buffer]) -> None:
        if not all(spill.copied.wait(MOST_SECONDS) for spill in job.after):
            self.fail(job, "late")
        began, first = time.time_ns(), time.monotonic()
        stored = [i for i in range(len(job.fetch.blocks)) if i not in job.held]
        for layers in layer_ranges(self._layout.layers, self._layout.part_bytes, len(job.fetch.blocks)):
            most = self._size // (len(layers) * self._layout.part_bytes)
            for some in (stored, list(job.held)):
                for start in range(0, len(some), most):
                    if not self._bring(job, some[start : start + most], layers, next(turn)):
                        return
            job.ready(layers.stop)
        if stored:
            self._record.read(self._number, len(stored), time.monotonic() - first)
        size = len(job.fetch.blocks) * self._layout.block_bytes
        self._record.copied(self._number, write=False, begin=began, end=time.time_ns(), size=size)

    def _bring(self, job: FetchJob, positions: list[int], layers: range, buffer: _Buffer) -> bool:
        """Brings some layers of some blocks, unless the job is over or one of them is not there."""
        if job.over:
            return False
        fetch = job.fetch
        buffer.copy.wait()
        shape = (len(positions), len(layers), *self._layout.part_shape)
        out = buffer.memory[: math.prod(shape)].view(shape)
        if positions[0] in job.held:
            bad = self._from_buffers(job, positions, layers, out)
        else:
            frames = [fetch.frames[i] for i in positions]
            bad = self._tier.read(frames, [fetch.keys[i] for i in positions], layers, out)
        self._progress = time.monotonic()
        if bad:
            self._record.lost(self._number, [fetch.frames[positions[i]] for i in bad])
            job.fail("read")  # the tier has counted what it found
            return False
        blocks = [fetch.blocks[i] for i in positions]
        after = [] if layers.start else [spill.copy for spill in job.after]

        def launch() -> Copy:
            buffer.copy = self._copies.scatter(blocks, layers, out, after)
            return buffer.copy

        return job.copy(layers.start, launch)

    def _from_buffers(self, job: FetchJob, positions: list[int], layers: range, out: Tensor) -> list[int]:
        bad = []
        for i, position in enumerate(positions):
            spill, row = job.held[position]
            if not spill.read(row, job.fetch.keys[position], layers, out[i], MOST_SECONDS):
                bad.append(i)
        return bad
