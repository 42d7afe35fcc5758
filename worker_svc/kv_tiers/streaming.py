"""Streams the KV of contexts past the device's memory: a thread reads what the layers of each step ask for,
piece by piece, ahead of them.

A step's pieces come in the order in which its layers attend to them. The thread reads into host memory and
brings each piece to one of a few buffers on the device; when the compute stage has used a piece, its buffer
takes the next. With more buffers than two, much of a step's span is there when the step begins.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from worker_svc.kv_tiers.copies import DONE, Copies, Copy
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.limits import FETCH_SECONDS, piece_buffers
from worker_svc.kv_tiers.record import TransferRecord
from worker_svc.kv_tiers.spilling import Spilling
from worker_svc.kv_tiers.streamed_frames import PIECE_BLOCKS, FramePiece, SpanFrames
from worker_svc.model.streamed_attention import Piece

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Buffer:
    """Of one piece, on the device."""

    memory: Tensor  # [2, most blocks, 16, kv heads, head_dim]
    blocks: int = 0
    filled: Copy = DONE
    used: object = None  # names what the compute stage has launched that reads it


@dataclass(slots=True)
class _HostBuffer:
    """What a tier is read into, and the last copy out of it."""

    memory: Tensor  # [most blocks, 2, 16, kv heads, head_dim]
    copy: Copy = DONE


class StreamReader:
    """The thread, and the buffers."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        copies: Copies,
        layout: KvLayout,
        spilling: Spilling,
        record: TransferRecord,
    ) -> None:
        self._tiers = tuple(tiers)
        self._copies = copies
        self._part_bytes = layout.part_bytes
        self._spilling = spilling
        self._record = record
        host = copies.buffer((2, PIECE_BLOCKS, *layout.part_shape), layout.dtype)
        self._turn = cycle([_HostBuffer(memory) for memory in host])
        both, *part = layout.part_shape
        count = piece_buffers(PIECE_BLOCKS * layout.part_bytes)
        memories = copies.device_buffer((count, both, PIECE_BLOCKS, *part), layout.dtype)
        self._free: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()
        for memory in memories:
            self._free.put(_Buffer(memory))
        self._steps: queue.SimpleQueue[StepStreams | None] = queue.SimpleQueue()
        self._live: deque[StepStreams] = deque()  # that have not been executed
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
        step = StepStreams(self, spans)
        self._live.append(step)
        self._steps.put(step)
        return step

    def start(self, step: StepStreams) -> None:
        """Compute stage: earlier steps have been executed, or never will be."""
        while (first := self._live.popleft()) is not step:
            first.close()

    def wait_no_more(self) -> None:
        """Compute stage: a piece did not come in time. Steps do not wait until the thread goes on."""
        self._stuck_with = self._now

    def fail_late(self, span: SpanPieces) -> None:
        """Compute stage: a piece of a span did not come in time."""
        span.failed = True
        for piece in span.pieces:
            self._tiers[piece.tier].faults.add("late", "it did not bring blocks in time", len(piece.frames))

    def give(self, buffer: _Buffer, *, used: bool) -> None:
        """``used``: what reads it has been launched on the compute stage's stream."""
        if used:
            buffer.used = self._copies.mark()
        self._free.put(buffer)

    def close(self, seconds: float) -> None:
        for step in list(self._live):
            step.close()
        self._steps.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        torch.set_num_threads(1)
        while (step := self._steps.get()) is not None:
            self._now = step
            try:
                for span, layer, piece in step.order():
                    if step.closed or not step.put(self._bring(span, layer, piece)):
                        break
            except Exception:
                logger.exception("KV could not be streamed")
                step.close()
            self._now = None

    def _bring(self, span: SpanPieces, layer: int, piece: FramePiece) -> _Buffer | None:
        """One layer of a piece, on the device; None where some of it, or of an earlier one, is not there."""
        if span.failed:
            return None
        host, began = next(self._turn), time.time_ns()
        host.copy.wait()
        blocks = len(piece.frames)
        source = host.memory[:blocks]
        bad = self._read(piece, range(layer, layer + 1), source.unsqueeze(1))
        if bad:
            self._record.lost(piece.tier, [piece.frames[i] for i in bad])
            span.failed = True  # the tier has counted what it found
            return None
        buffer = self._free.get()
        host.copy = buffer.filled = self._copies.bring(source, buffer.memory[:, :blocks], buffer.used)
        buffer.blocks = blocks
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
                    found = spill.read(row, key, layers, out[i], FETCH_SECONDS)
                else:
                    found = not tier.read([frame], [key], layers, out[i : i + 1])
                if not found:
                    bad.append(i)
        finally:
            self._spilling.let_go(spill for spill, _ in held.values())
        return bad


class StepStreams:
    """What the spans of one step read."""

    def __init__(self, reader: StreamReader, spans: Sequence[SpanFrames]) -> None:
        self.spans = tuple(SpanPieces(self, span) for span in spans)
        self.wait_ns = 0  # that layers waited
        self._reader = reader
        self._changed = threading.Condition()
        self._ready: deque[_Buffer | None] = deque()
        self.closed = False  # no more pieces are taken

    def order(self) -> Iterator[tuple[SpanPieces, int, FramePiece]]:
        """The pieces as the layers attend to them."""
        layers = {layer for span in self.spans for layer in span.layers}
        for layer in sorted(layers):
            for span in self.spans:
                if layer in span.layers:
                    yield from ((span, layer, piece) for piece in span.pieces)

    def start(self) -> None:
        """Compute stage, before the first layer."""
        self._reader.start(self)

    def put(self, buffer: _Buffer | None) -> bool:
        """The reader: the next piece is there, or cannot be read. False: no more are wanted."""
        with self._changed:
            if not self.closed:
                self._ready.append(buffer)
                self._changed.notify_all()
                return True
        if buffer is not None:
            self._reader.give(buffer, used=False)
        return False

    def take(self, span: SpanPieces) -> _Buffer | None:
        """Compute stage: the next piece, or None where it did not come."""
        began = time.monotonic_ns()
        with self._changed:
            seconds = 0.0 if self._reader.stuck else FETCH_SECONDS
            in_time = self._changed.wait_for(lambda: bool(self._ready) or self.closed, seconds)
            found = self._ready.popleft() if self._ready else None
        self.wait_ns += time.monotonic_ns() - began
        if not in_time:
            self._reader.wait_no_more()
            self.close()
        if found is None and not span.failed:
            self._reader.fail_late(span)
        return found

    def release(self, buffer: _Buffer) -> None:
        """Compute stage: what reads it has been launched."""
        self._reader.give(buffer, used=True)

    def close(self) -> None:
        """No more pieces are taken."""
        with self._changed:
            self.closed = True
            left = [buffer for buffer in self._ready if buffer is not None]
            self._ready.clear()
            self._changed.notify_all()
        for buffer in left:
            self._reader.give(buffer, used=False)


class SpanPieces:
    """What one span reads, as :class:`worker_svc.model.attention.LayerPieces`."""

    def __init__(self, step: StepStreams, span: SpanFrames) -> None:
        self.incarnation, self.layers, self.pieces = span
        self.failed = False  # some of it did not come: what the rows attend to is not their context
        self._step = step

    def next_layer(self) -> Iterator[Piece]:
        for _ in self.pieces:
            buffer = self._step.take(self)
            if buffer is None:
                continue
            buffer.filled.before_compute()
            keys, values = buffer.memory[:, : buffer.blocks].flatten(1, 2)
            yield Piece(keys, values)
            self._step.release(buffer)
