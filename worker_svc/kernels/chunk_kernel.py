"""Attention of chunks by kernels that take ragged block tables as they are, such as those in Triton."""

from __future__ import annotations

from torch import Tensor

from worker_svc.kernels.interface import AttendChunks, Chunks, RaggedAttention


class ChunkKernel:
    """See :class:`worker_svc.kernels.interface.ChunkAttention`."""

    def __init__(self, kernels: RaggedAttention, name: str) -> None:
        self.name = name
        self._kernels = kernels

    def of_step(self, chunks: Chunks) -> AttendChunks:
        tables = chunks.blocks, chunks.starts, chunks.firsts, chunks.positions

        def attend(q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
            self._kernels.chunks(q, keys, values, *tables, out)

        return attend
