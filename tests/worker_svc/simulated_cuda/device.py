"""Streams and events of the simulated device, and the work that waits in them."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.worker_svc.simulated_cuda.policy import Policy

if TYPE_CHECKING:
    from tests.worker_svc.simulated_cuda.graphs import CUDAGraph

CUDA = torch.device("cuda", 0)
HANGS_SECONDS = 20.0
"""After which a wait that nothing can end fails."""


class CudaError(RuntimeError):
    """What a real device would report, or torch of it."""


@dataclass(eq=False, slots=True)
class Mark:
    """A point in a stream, which is reached once all work before it has run."""

    stream: Stream
    reached: bool = False
    nanoseconds: int = 0  # of time.time_ns, when it was reached

    def reach(self) -> None:
        self.reached, self.nanoseconds = True, time.time_ns()


@dataclass(eq=False, slots=True)
class Work:
    """One entry of a stream's queue."""

    name: str
    run: Callable[[], object]
    after: Mark | None = None  # which must be reached first
    seconds: float = 0.0  # for which it takes up the stream
    until: float = 0.0  # when these are over, once it has begun

    def able(self) -> bool:
        if self.after is not None and not self.after.reached:
            return False
        if self.seconds and not self.until:
            self.until = time.monotonic() + self.seconds
        return time.monotonic() >= self.until


class Device:
    """All streams. Work runs in the thread that waits for it or launches something, under one lock."""

    def __init__(self, seed: int) -> None:
        self.policy = Policy(seed)
        self.lock = threading.RLock()
        self.streams: list[Stream] = []
        self.counts: Counter[str] = Counter()
        """Of launches by operator, ``event.record``, ``wait_event``, ``sync: ...`` by reason, and others."""
        self.errors: list[BaseException] = []
        """Of work. The thread in which it ran may not be the one that launched it, and may go on."""
        self.forbid_syncs = False
        self.pinned: list[Tensor] = []
        """Host memory. torch keeps what is freed until copies are done with it; here it is kept for good."""
        self._deferred: list[tuple[list[Mark], Callable[[], object]]] = []
        self._local = threading.local()
        self.default = Stream(owner=self)

    @property
    def current(self) -> Stream:
        """The calling thread's stream."""
        return getattr(self._local, "stream", None) or self.default

    @current.setter
    def current(self, stream: Stream | None) -> None:
        self._local.stream = stream

    @property
    def capture(self) -> CUDAGraph | None:
        """What the calling thread captures."""
        return getattr(self._local, "capture", None)

    @capture.setter
    def capture(self, graph: CUDAGraph | None) -> None:
        self._local.capture = graph

    def calls(self) -> Counter[str]:
        """What programs have asked for so far, of ``counts``."""
        asked = ("launch", "sync", "event", "wait_event", "record_stream", "replay")
        return Counter({name: count for name, count in self.counts.items() if name.startswith(asked)})

    def launch(self, name: str, run: Callable[[], object], *, seconds: float = 0.0) -> None:
        """Puts work into the current stream, or into the graph that captures it; lets some work run."""
        self.put(Work(name, run, seconds=seconds))

    def put(self, work: Work) -> None:
        """As :meth:`launch`."""
        with self.lock:
            self.counts[f"launch: {work.name}"] += 1
            graph = self.capture
            if graph is not None and self.current is graph.stream:
                graph.nodes.append(work)
                return
            self.current.queue.append(work)
            self.progress()

    def progress(self) -> None:
        """Lets as much work run as the policy draws."""
        with self.lock:
            for _ in range(self.policy.burst()):
                if not self._run_any():
                    return

    def sync(self, reason: str) -> None:
        """The calling thread waits for its current stream."""
        self.note_sync(reason)
        self.wait(self.current.mark())

    def note_sync(self, reason: str) -> None:
        self.counts[f"sync: {reason}"] += 1
        if self.capture is not None:
            raise CudaError(f"operation not permitted when stream is capturing: {reason}")
        if self.forbid_syncs:
            raise CudaError(f"called a synchronizing CUDA operation: {reason}")

    def wait(self, mark: Mark) -> None:
        """Lets work run until a mark is reached. Raises CudaError where that never comes."""
        began = time.monotonic()
        while True:
            with self.lock:
                if mark.reached:
                    return
                moved = self._run_towards(mark) if self.policy.least else self._run_any()
            if not moved:
                if time.monotonic() - began > HANGS_SECONDS:
                    raise CudaError("the simulated device hangs")
                time.sleep(0.0002)

    def step_towards(self, mark: Mark) -> None:
        """One look at a mark from the host: a program that polls must get on, if slowly."""
        with self.lock:
            if not mark.reached and self.policy.random.random() < 0.2:
                self._run_towards(mark)

    def _run_towards(self, mark: Mark) -> bool:
        stream = mark.stream
        while (after := stream.queue[0].after) is not None and not after.reached:
            stream = after.stream
        return stream.queue[0].able() and self._run(stream)

    def _run_any(self) -> bool:
        able = [stream for stream in self.streams if stream.queue and stream.queue[0].able()]
        if not able:
            return False
        return self._run(able[self.policy.choose([stream.weight for stream in able])])

    def _run(self, stream: Stream) -> bool:
        work = stream.queue.popleft()
        self.counts["ran"] += 1
        try:
            # On the CPU; and in this mode both kinds of tensors may be written to.
            with torch._C._DisableTorchDispatch(), torch.inference_mode():
                work.run()
        except Exception as error:
            error.add_note(f"in {work.name} on the simulated device")
            self.errors.append(error)
            raise
        for entry in [entry for entry in self._deferred if all(mark.reached for mark in entry[0])]:
            self._deferred.remove(entry)
            entry[1]()
        return True

    def when_reached(self, marks: list[Mark], run: Callable[[], object]) -> None:
        """Does something in no stream's order."""
        with self.lock:
            self._deferred.append((marks, run))


_installed: Device | None = None


def device() -> Device:
    """The one that stands in the place of torch's."""
    if _installed is None:
        raise RuntimeError("no simulated device is installed")
    return _installed


def is_simulated() -> bool:
    """Whether a simulated device stands in the place of torch's."""
    return _installed is not None


def set_device(new: Device | None) -> None:
    global _installed
    _installed = new


class Stream:
    """As torch.cuda.Stream. Streams do not wait for one another, nor for the default one."""

    def __init__(self, _: object = None, priority: int = 0, *, owner: Device | None = None) -> None:
        self.owner = owner or device()
        self.device = CUDA
        self.priority = priority
        self.weight = self.owner.policy.weight()
        self.queue: deque[Work] = deque()
        with self.owner.lock:
            self.owner.streams.append(self)

    def mark(self) -> Mark:
        """The point behind all that it holds now."""
        mark = Mark(self)
        with self.owner.lock:
            self.queue.append(Work("mark", mark.reach))
        return mark

    def wait_event(self, event: Event) -> None:
        self.owner.counts["wait_event"] += 1
        graph = self.owner.capture
        if graph is not None and graph.stream is self:
            raise CudaError("the captured stream waits for work that is not captured")
        if event.mark is None:
            self.owner.counts["wait_event before its record"] += 1  # without an effect, as on a device
            return
        with self.owner.lock:
            self.queue.append(Work("wait", lambda: None, after=event.mark))

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.owner.note_sync("Stream.synchronize")
        self.owner.wait(self.mark())

    def query(self) -> bool:
        self.owner.progress()
        return not self.queue


class Event:
    """As torch.cuda.Event."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self.owner = device()
        self.timing = enable_timing
        self.blocking = blocking
        self.mark: Mark | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or self.owner.current
        graph = self.owner.capture
        if graph is not None and graph.stream is stream:
            raise CudaError("an event is recorded in a capture")
        self.owner.counts["event.record"] += 1
        self.mark = stream.mark()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.owner.current).wait_event(self)

    def synchronize(self) -> None:
        """Not a hidden wait: torch's debug mode lets it through."""
        self.owner.counts["event.synchronize"] += 1
        if self.owner.capture is not None:
            raise CudaError("event.synchronize while the thread captures")
        if self.mark is not None:
            self.owner.wait(self.mark)

    def query(self) -> bool:
        if self.mark is None:
            return True
        self.owner.step_towards(self.mark)
        return self.mark.reached

    def elapsed_time(self, later: Event) -> float:
        """Milliseconds."""
        if not (self.timing and later.timing):
            raise CudaError("the events were made without timing")
        if self.mark is None or later.mark is None or not (self.mark.reached and later.mark.reached):
            raise CudaError("device not ready")
        return (later.mark.nanoseconds - self.mark.nanoseconds) / 1e6
