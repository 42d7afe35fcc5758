"""What the spans of one step read, from the thread that reads it to the layers that attend to it.

:mod:`worker_svc.kv_tiers.streaming` has that thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from worker_svc.kv_tiers.limits import FETCH_SECONDS, MOST_STREAM_SECONDS
from worker_svc.kv_tiers.stream_buffers import StreamBuffer, StreamBuffers
from worker_svc.kv_tiers.streamed_frames import FramePiece, SpanFrames
from worker_svc.model.streamed_attention import Piece


class Reader(Protocol):
    """The thread, as the compute stage sees it."""

    @property
    def stuck(self) -> bool:
        """Whether it does not get on, and nothing is to be waited for."""
        ...

    def start(self, step: StepStreams) -> None:
        """Earlier steps have been executed, or never will be."""
        ...

    def wait_no_more(self) -> None:
        """Nothing came for as long as a layer waits. Steps do not wait until the thread goes on."""
        ...

    def missed(self, span: SpanPieces, reason: str) -> None:
        """A span has failed, not for what its frames hold."""
        ...


class StepStreams:
    """Of one step."""

    def __init__(self, reader: Reader, buffers: StreamBuffers, spans: Sequence[SpanFrames]) -> None:
        self.spans = tuple(SpanPieces(self, span) for span in spans)
        self.wait_ns = 0  # that layers waited
        self._reader = reader
        self._buffers = buffers
        self._changed = threading.Condition()
        self._ready: deque[StreamBuffer | None] = deque()
        self.closed = False  # no more pieces are taken
        self._reason = ""  # why, where that is a fault

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

    def put(self, buffer: StreamBuffer | None) -> bool:
        """The reader: the next piece is there, or cannot be read. False: no more are wanted."""
        with self._changed:
            if not self.closed:
                self._ready.append(buffer)
                self._changed.notify_all()
                return True
        if buffer is not None:
            self._buffers.give(buffer, used=False)
        return False

    def take(self, span: SpanPieces) -> StreamBuffer | None:
        """Compute stage: the next piece, or None where it did not come."""
        began, patience = time.monotonic_ns(), self._patience()
        with self._changed:
            in_time = self._changed.wait_for(lambda: bool(self._ready) or self.closed, patience)
            found = self._ready.popleft() if self._ready else None
        self.wait_ns += time.monotonic_ns() - began
        if not in_time:
            if patience == FETCH_SECONDS:
                self._reader.wait_no_more()
            self.close("late")
        if found is None and not span.failed:
            span.failed = True
            if self._reason:
                self._reader.missed(span, self._reason)
        return found

    def _patience(self) -> float:
        """Seconds that a layer waits for its next piece."""
        if self._reader.stuck:
            return 0.0
        return max(0.0, min(FETCH_SECONDS, MOST_STREAM_SECONDS - self.wait_ns / 1e9))

    def release(self, buffer: StreamBuffer) -> None:
        """Compute stage: what reads it has been launched."""
        self._buffers.give(buffer, used=True)

    def close(self, reason: str = "") -> None:
        """Any thread: no more pieces are taken, and a span that lacks some has failed."""
        with self._changed:
            if not self.closed:
                self.closed, self._reason = True, reason
            left = [buffer for buffer in self._ready if buffer is not None]
            self._ready.clear()
            self._changed.notify_all()
        for buffer in left:
            self._buffers.give(buffer, used=False)


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
