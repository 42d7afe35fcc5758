"""Streams the KV of contexts past the device's memory: a thread reads what the layers of each step ask for,
piece by piece, ahead of them.

A step's pieces come in the order in which its layers attend to them. The thread reads into host memory and
brings each piece to one of a few buffers on the device; when the compute stage has used a piece, its buffer
takes the next.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from worker_svc.kv_tiers.copies import Copies
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.limits import MOST_SECONDS
from worker_svc.kv_tiers.record import TransferRecord
from worker_svc.kv_tiers.spilling import Spilling
from worker_svc.kv_tiers.step_streams import SpanPieces, StepStreams
from worker_svc.kv_tiers.stream_buffers import StreamBuffer, StreamBuffers
from worker_svc.kv_tiers.streamed_frames import FramePiece, SpanFrames

logger = logging.getLogger(__name__)

DETAILS = {"late": "it did not bring blocks in time", "error": "blocks could not be streamed"}
"""Why spans fail other than for what their frames hold, for the log."""


class StreamReader:
    """The thread, and the steps that it reads for."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        copies: Copies,
        layout: KvLayout,
        spilling: Spilling,
        record: TransferRecord,
    ) -> None:
        self._tiers = tuple(tiers)
        self._part_bytes = layout.part_bytes
        self._spilling = spilling
        self._record = record
        self._buffers = StreamBuffers(copies, layout)
        self._steps: queue.SimpleQueue[StepStreams | None] = queue.SimpleQueue()
        self._live: deque[StepStreams] = deque()  # the last that has been started, and those behind it
        self._now: StepStreams | None = None
        self._stuck_with: StepStreams | None = None
        self._thread = threading.Thread(target=self._run, name="kv-stream", daemon=True)
        self._thread.start()

    @property
    def stuck(self) -> bool:
        """Whether the thread reads the same step since one waited in vain: the tier does not answer."""
        return self._now is not None and self._now is self._stuck_with

    def submit(self, spans: Sequence[SpanFrames]) -> StepStreams:
        """Input stage. Reading begins at once, as far as buffers are free."""
        step = StepStreams(self, self._buffers, spans)
        self._live.append(step)
        self._steps.put(step)
        return step

    def start(self, step: StepStreams) -> None:
        """Compute stage: earlier steps have been executed, or never will be."""
        while self._live[0] is not step:
            self._live.popleft().close()

    def wait_no_more(self) -> None:
        """Compute stage: nothing came in time. Steps do not wait until the thread goes on."""
        self._stuck_with = self._now

    def missed(self, span: SpanPieces, reason: str) -> None:
        """Compute stage. ``reason``: of ``DETAILS``."""
        for piece in span.pieces:
            self._tiers[piece.tier].faults.add(reason, DETAILS[reason], len(piece.frames))

    def cancel_all(self) -> None:
        """Any thread: the results of the steps so far do not count."""
        for step in list(self._live):
            step.close()

    def close(self, seconds: float) -> None:
        self.cancel_all()
        self._steps.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        torch.set_num_threads(1)
        while (step := self._steps.get()) is not None:
            self._now = step
            try:
                for span, layer, piece in step.order():
                    if step.closed or not step.put(self._bring(step, span, layer, piece)):
                        break
            except Exception:
                logger.exception("KV could not be streamed")
                step.close("error")
            self._now = None

    def _bring(
        self, step: StepStreams, span: SpanPieces, layer: int, piece: FramePiece
    ) -> StreamBuffer | None:
        """One layer of a piece, on the device; None where some of it, or of an earlier one, is not there."""
        if span.failed:
            return None
        host, began, blocks = self._buffers.host(), time.time_ns(), len(piece.frames)
        bad = self._read(piece, range(layer, layer + 1), host.memory[:blocks].unsqueeze(1))
        if bad:
            if not step.closed:  # else the frames may have others' blocks by now
                self._record.lost(piece.tier, [piece.frames[i] for i in bad])
            span.failed = True  # the tier has counted what it found
            return None
        buffer = self._buffers.bring(host, blocks)
        size = blocks * self._part_bytes
        self._record.streamed(piece.tier, layer, begin=began, end=time.time_ns(), size=size)
        return buffer

    def _read(self, piece: FramePiece, layers: range, out: Tensor) -> list[int]:
        """Positions that could not be read. A frame that is still to be written comes from its buffer."""
        tier, held = self._tiers[piece.tier], self._spilling.hold(piece.tier, piece.frames)
        if not held:
            return tier.read(piece.frames, piece.keys, layers, out)
        bad = []
        try:
            for i, (frame, key) in enumerate(zip(piece.frames, piece.keys, strict=True)):
                if i in held:
                    spill, row = held[i]
                    found = spill.read(row, key, layers, out[i], MOST_SECONDS)
                else:
                    found = not tier.read([frame], [key], layers, out[i : i + 1])
                if not found:
                    bad.append(i)
        finally:
            self._spilling.let_go(spill for spill, _ in held.values())
        return bad
