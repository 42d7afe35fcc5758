"""CUDA graphs that draw: one launch instead of some fifty. The step's sampler runs them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worker_svc.buffers.buckets import bucket_sizes
from worker_svc.buffers.graph_memory import GraphMemory
from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.buffers.structs import Packing
from worker_svc.sampling.graph_draws import draw, padding_rows
from worker_svc.sampling.inputs import Drawn, GraphDraws


class DrawGraphs:
    """A graph for each way to draw and each bucket of rows. Compute stage only.

    They are graphs of their own, and not ends of those of decode steps: these would be as many for each way
    to draw. So steps with chunks use them too. The logits come in memory that all of them read; a rank fills
    it, without a copy, where it would else make its rows whole.
    """

    def __init__(self, memory: GraphMemory, vocab_size: int, columns: int, most: int) -> None:
        """Captures all of them. ``columns``: of whole rows, at least ``vocab_size``; ``most``: rows that this
        rank samples. Raises CheckpointError where the device has not enough memory for them."""
        self.rows = bucket_sizes(most)
        """The buckets, ascending."""
        self.logits = torch.zeros(most, columns, device=memory.device)
        """Of a step's rows, to be written before :meth:`run`."""
        self._vocab_size = vocab_size
        self._scratch = ScratchBuffer()  # does not grow: the largest graph comes first
        size = Packing(padding_rows(Drawn.GREEDY, most)).size
        keys = [(drawn, rows) for rows in self.rows[::-1] for drawn in Drawn]
        self._graphs = memory.capture_each(f"draws of 1 to {most} rows", keys, size, self._prepare)

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, params: GraphDraws[Tensor], words: Tensor) -> Tensor:
        """Ids ``[bucket]`` of a step, good until any graph runs next. ``words``: int64, of ``params``."""
        return self._graphs.run((params.drawn, len(params)), words)

    def _prepare(self, key: tuple[Drawn, int], words: Tensor) -> Callable[[], Tensor]:
        """Rows of zeros."""
        drawn, rows = key
        padding = Packing(padding_rows(drawn, rows))
        padding.write(words)
        params = padding.views(GraphDraws[Tensor], words)
        return lambda: draw(self.logits[:rows, : self._vocab_size], params, self._scratch)
