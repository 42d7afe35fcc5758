"""CUDA graphs on the simulated device: what is launched during a capture, replayed at the same addresses."""

from __future__ import annotations

from functools import partial
from types import TracebackType

from torch import Tensor

from tests.worker_svc.simulated_cuda.device import CudaError, Stream, Work, device
from tests.worker_svc.simulated_cuda.memory import spoil


class Pool:
    """Memory that graphs share."""

    def __init__(self) -> None:
        self.graphs: list[CUDAGraph] = []


class CUDAGraph:
    """As torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self.nodes: list[Work] = []
        self.stream: Stream | None = None  # that is captured
        self.freed: list[Tensor] = []  # after the capture
        self.pool = Pool()

    def replay(self) -> None:
        """Any graph may write to what its pool has of freed memory."""
        owner = device()
        if owner.capture is not None:
            raise CudaError("a replay while the thread captures")
        owner.counts["replay"] += 1
        with owner.lock:
            for memory in [memory for graph in self.pool.graphs for memory in graph.freed]:
                owner.current.queue.append(Work("free", partial(spoil, memory, owner)))
            owner.current.queue.extend(self.nodes)
            owner.progress()


class Capture:
    """As torch.cuda.graph."""

    def __init__(
        self,
        graph: CUDAGraph,
        pool: Pool | None = None,
        stream: Stream | None = None,
        capture_error_mode: str = "global",
    ) -> None:
        self._graph = graph
        self._graph.stream = stream or Stream()
        self._graph.pool = pool or graph.pool

    def __enter__(self) -> None:
        owner = device()
        owner.counts["capture"] += 1
        for stream in list(owner.streams):
            owner.wait(stream.mark())
        self._graph.pool.graphs.append(self._graph)
        self._before = owner.current
        owner.current, owner.capture = self._graph.stream, self._graph

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        owner = device()
        owner.current, owner.capture = self._before, None
