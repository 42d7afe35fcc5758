"""Paged attention by kernels that take ragged block tables, as those in Triton do."""

from __future__ import annotations

from torch import Tensor

from worker_svc.kernels import interface
from worker_svc.kernels.interface import AttendChunks, ChunkAttention
from worker_svc.model.attention import RowGroup
from worker_svc.model.kv_cache import LayerCache


class RaggedAttention:
    """See :class:`worker_svc.model.attention.PagedAttention`."""

    masked = False
    ragged = True

    def __init__(self, kernels: interface.RaggedAttention, chunks: ChunkAttention) -> None:
        """``kernels``: for decoding rows."""
        self.name = f"attention of chunks by {chunks.name}"
        self._kernels = kernels
        self._chunks = chunks
        self._step: tuple[RowGroup, AttendChunks] | None = None  # the last one with chunks

    def decodes(self, q: Tensor, cache: LayerCache, group: RowGroup, out: Tensor) -> None:
        assert group.starts is not None
        self._kernels.decode(q, cache.keys, cache.values, group.blocks, group.starts, group.positions, out)

    def chunk(self, q: Tensor, cache: LayerCache, group: RowGroup, out: Tensor) -> None:
        if self._step is None or self._step[0] is not group:  # the first layer of a step
            assert group.chunks is not None
            self._step = group, self._chunks.of_step(group.chunks)
        _, attend = self._step
        attend(q, cache.keys, cache.values, out)
