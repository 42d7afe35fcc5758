"""Spills: blocks are copied to host buffers, and written to their tiers behind that.

The input stage adds spills and copies those blocks that change hands at once. The others are copied while
their step runs. Nothing waits for a tier: where no buffer is free, a spill is dropped, its frames are lost.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from albireo.contract.tiers import Spill
from worker_svc.kv_tiers.copies import Copies
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.limits import PORTION
from worker_svc.kv_tiers.record import TransferRecord
from worker_svc.kv_tiers.ring import BufferRing
from worker_svc.kv_tiers.spill_job import SpillJob, SpillState

logger = logging.getLogger(__name__)

NICENESS = 10
"""Of the threads that spill: compute goes first."""
DETAILS = {
    "full": "too many blocks wait to be written",
    "dropped": "blocks were given up with their step",
    "nan": "the KV of blocks had numbers that are not finite",
    "error": "blocks could not be written",
}
"""Why spills fail before a tier has them, for the log."""


class Spilling:
    """All spills of a rank: one thread copies, and one a tier writes."""

    def __init__(
        self, tiers: Sequence[Tier], copies: Copies, layout: KvLayout, record: TransferRecord
    ) -> None:
        self._tiers = tuple(tiers)
        self._copies = copies
        self._block_bytes = layout.block_bytes
        self._record = record
        self._lock = threading.Lock()
        self._ring = BufferRing(copies, layout)
        self._uncopied: set[SpillJob] = set()
        self._pending: dict[tuple[int, int], tuple[SpillJob, int]] = {}  # by tier and frame: the last spill
        self._to_copy: queue.SimpleQueue[tuple[SpillJob, object] | None] = queue.SimpleQueue()
        self._to_write: tuple[queue.SimpleQueue[SpillJob | None], ...] = tuple(
            queue.SimpleQueue() for _ in tiers
        )
        self._threads = [threading.Thread(target=self._copy_all, name="kv-spill", daemon=True)]
        for number, tier in enumerate(tiers):
            self._threads.append(
                threading.Thread(
                    target=self._write_all, args=(number,), name=f"kv-write-{tier.name}", daemon=True
                )
            )
        for thread in self._threads:
            thread.start()

    @property
    def copies_wait(self) -> bool:
        """Whether blocks are still to be copied."""
        return bool(self._uncopied)

    def copying(self, blocks: Iterable[int]) -> list[SpillJob]:
        """Spills that may still read some of these blocks."""
        if not self._uncopied:
            return []
        some = set(blocks)
        with self._lock:
            return [job for job in self._uncopied if not some.isdisjoint(job.blocks)]

    def add(self, spill: Spill) -> list[SpillJob]:
        """Input stage: takes buffers for a spill, as many as there are."""
        jobs = []
        for first in range(0, len(spill.blocks), PORTION):
            some = slice(first, first + PORTION)
            frames = spill.frames[some]
            with self._lock:
                buffer = self._ring.take()
                if buffer is not None:
                    job = SpillJob(spill.tier, spill.blocks[some], frames, spill.keys[some], buffer)
                    self._uncopied.add(job)
                    self._pending |= {(spill.tier, frame): (job, row) for row, frame in enumerate(frames)}
            if buffer is None:
                self._lose(spill.tier, frames, "full")
            else:
                jobs.append(job)
        return jobs

    def copy_now(self, job: SpillJob) -> None:
        """Input stage: its blocks change hands with the step, and no step in flight touches them."""
        self._copy(job, None)

    def start(self, jobs: Iterable[SpillJob]) -> None:
        """Compute stage: all steps before theirs have been launched."""
        mark = self._copies.mark()
        for job in jobs:
            self._to_copy.put((job, mark))

    def drop(self, jobs: Iterable[SpillJob]) -> None:
        """What has not been copied is not spilled: whatever the buffers get from now on does not count."""
        for job in jobs:
            with self._lock:
                if job.state not in (SpillState.WAITING, SpillState.COPYING):
                    continue
                lost = self._forget(job)
                job.over = job.state is SpillState.WAITING  # else when the copy has ended
                job.state = SpillState.DROPPED
                self._release(job)
            job.copied.set()
            self._lose(job.tier, [job.frames[row] for row in lost], "dropped")

    def drop_uncopied(self) -> None:
        """The steps that they belong to may never run."""
        with self._lock:
            jobs = list(self._uncopied)
        self.drop(jobs)

    def pending(self) -> dict[tuple[int, int], bytes]:
        """Keys by tier and frame of what is to be written."""
        with self._lock:
            return {frame: job.keys[row] for frame, (job, row) in self._pending.items()}

    def hold(self, tier: int, frames: Sequence[int]) -> dict[int, tuple[SpillJob, int]]:
        """By position: the buffers and their rows that these frames will be written from. Each is to be given
        back by ``let_go``."""
        if not self._pending:
            return {}
        with self._lock:
            held = {i: found for i, f in enumerate(frames) if (found := self._pending.get((tier, f)))}
            for job, _ in held.values():
                job.holds += 1
        return held

    def let_go(self, jobs: Iterable[SpillJob]) -> None:
        with self._lock:
            for job in jobs:
                job.holds -= 1
                self._release(job)

    def close(self, seconds: float) -> None:
        """Ends the threads when they have written what was copied, or after ``seconds``."""
        until = time.monotonic() + seconds
        self._to_copy.put(None)
        self._threads[0].join(max(0.0, until - time.monotonic()))
        for writes in self._to_write:
            writes.put(None)
        for thread in self._threads[1:]:
            thread.join(max(0.0, until - time.monotonic()))

    def _copy_all(self) -> None:
        _behind_compute()
        while (work := self._to_copy.get()) is not None:
            job, mark = work
            try:
                self._copy(job, mark)
            except Exception:
                logger.exception("KV blocks could not be copied from the device")
                self.drop([job])
                self._end(job, ())

    def _copy(self, job: SpillJob, mark: object) -> None:
        with self._lock:
            if job.state is not SpillState.WAITING:
                return
            job.state = SpillState.COPYING
        job.began = time.time_ns()
        job.copy = self._copies.gather(job.blocks, job.rows, mark)
        with self._lock:
            if job.state is SpillState.COPYING:
                job.state = SpillState.COPIED
        job.copied.set()
        self._to_write[job.tier].put(job)

    def _write_all(self, number: int) -> None:
        _behind_compute()
        while (job := self._to_write[number].get()) is not None:
            try:
                job.copy.wait()
                # Not when the copy was launched: rank 0 settles steps, and this rank's device may be behind.
                with self._lock:
                    self._uncopied.discard(job)
                self._write(job)
            except Exception:
                logger.exception("KV tier %s could not be written", self._tiers[number].name)
                self._end(job, ())
                self._lose(number, job.frames, "error")

    def _write(self, job: SpillJob) -> None:
        with self._lock:  # of a dropped spill none; a later spill may have the frame, too
            due = [row for row, f in enumerate(job.frames) if self._pending.get((job.tier, f)) == (job, row)]
        finite = _finite(job.rows)
        own = [row for row in due if finite[row]]
        frames = [job.frames[row] for row in own]
        rows = job.rows if len(own) == len(job.frames) else job.rows[own]
        failed = self._tiers[job.tier].write(frames, [job.keys[row] for row in own], rows) if own else []
        if len(failed) < len(own):
            size = (len(own) - len(failed)) * self._block_bytes
            self._record.copied(job.tier, write=True, begin=job.began, end=time.time_ns(), size=size)
        self._end(job, [frames[i] for i in failed])
        self._lose(job.tier, [job.frames[row] for row in due if not finite[row]], "nan")

    def _end(self, job: SpillJob, failed: Sequence[int]) -> None:
        with self._lock:
            self._forget(job)
            job.over = True
            self._release(job)
        if failed:  # the tier has counted them
            self._record.lost(job.tier, failed)

    def _forget(self, job: SpillJob) -> list[int]:
        """Rows that were to be written and are not any more."""
        self._uncopied.discard(job)
        own = [row for row, f in enumerate(job.frames) if self._pending.get((job.tier, f)) == (job, row)]
        for row in own:
            del self._pending[job.tier, job.frames[row]]
        return own

    def _release(self, job: SpillJob) -> None:
        """Gives the buffer back, once."""
        if job.buffer is not None and not job.holds and job.over:
            self._ring.give(job.buffer)
            job.buffer = None

    def _lose(self, tier: int, frames: Sequence[int], reason: str) -> None:
        if frames:
            self._record.lost(tier, frames)
            self._tiers[tier].faults.add(reason, DETAILS[reason], len(frames))


def _finite(rows: Tensor) -> list[bool]:
    """Of each block, whether all its numbers are: a tier would keep others beyond the request that they end.

    A sum of finite numbers this small is finite, and takes less time than to look at each.
    """
    found: list[bool] = rows.flatten(1).sum(1, dtype=torch.float32).isfinite().tolist()
    return found


def _behind_compute() -> None:
    """In its own thread."""
    torch.set_num_threads(1)
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
