"""Captures CUDA graphs, in memory that they share.

Those of decode steps and those of draws are made here when a rank starts, and run in the compute stage.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from albireo.checkpoint.files import CheckpointError

logger = logging.getLogger(__name__)

K = TypeVar("K")


class CapturedGraph(NamedTuple):
    """A graph, and what each replay brings."""

    graph: torch.cuda.CUDAGraph
    found: Tensor


class CapturedGraphs(Generic[K]):
    """A graph for each of some keys, which all read their input words at the same address."""

    def __init__(self, words: Tensor, captured: Mapping[K, CapturedGraph]) -> None:
        self._words = words
        self._captured = captured

    def __len__(self) -> int:
        return len(self._captured)

    def run(self, key: K, words: Tensor) -> Tensor:
        """What the graph of ``key`` brings with ``words`` (int64), good until any graph of the same memory
        runs next, on the same stream."""
        self._words[: len(words)].copy_(words)
        graph, found = self._captured[key]
        graph.replay()
        return found


class GraphMemory:
    """The memory pool of one rank's CUDA graphs.

    A graph reads and writes fixed addresses. What goes in must outlive it: the words of its input, which are
    kept with it, and what belongs to the code that captures it. Everything between was allocated during the
    capture, in the pool. All graphs share the pool: replays follow one another on one stream, and keep
    nothing but what they bring.
    """

    def __init__(self, device: torch.device, *, shows_progress: bool = False) -> None:
        """``shows_progress``: as a bar, where people look on."""
        self.device = device
        self._stream = torch.cuda.Stream(device)  # captures; replays run on the compute stage's
        self._pool = torch.cuda.graph_pool_handle()
        self._hidden = not (shows_progress and sys.stderr.isatty())

    def capture_each(
        self, what: str, keys: Sequence[K], size: int, body_of: Callable[[K, Tensor], Callable[[], Tensor]]
    ) -> CapturedGraphs[K]:
        """A graph for each of ``keys``. The largest comes first: of what it has freed the others need less.

        ``size``: most words of an input. ``body_of`` writes what a graph's body reads into such words, and
        returns the body; ``what`` is for people. Raises CheckpointError where the device has not enough
        memory.
        """
        began, screen = time.perf_counter(), Console(stderr=True)
        words = torch.zeros(size, dtype=torch.int64, device=self.device)
        shown = track(keys, f"CUDA graphs of {what}", console=screen, transient=True, disable=self._hidden)
        try:
            captured = {key: self._capture(body_of(key, words)) for key in shown}
        except torch.OutOfMemoryError as error:
            raise CheckpointError(f"no memory for CUDA graphs, lower --kv-memory: {error}") from None
        seconds = time.perf_counter() - began
        logger.info("captured %d CUDA graphs, of %s, in %.1f s", len(captured), what, seconds)
        return CapturedGraphs(words, captured)

    @torch.inference_mode()
    def _capture(self, body: Callable[[], Tensor]) -> CapturedGraph:
        """Runs it once, which compiles and loads kernels and connects NCCL, then records it."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            body()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Thread-local: NCCL's watchdog goes on talking to the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            found = body()
        return CapturedGraph(graph, found)
