"""Paged attention by kernels that take ragged block tables, as those in Triton do."""

from __future__ import annotations

from torch import Tensor

from worker_svc.kernels import interface
from worker_svc.model.attention import RowGroup
from worker_svc.model.kv_cache import LayerCache


class RaggedAttention:
    """See :class:`worker_svc.model.attention.PagedAttention`."""

    masked = False
    ragged = True

    def __init__(self, kernels: interface.RaggedAttention) -> None:
        self._kernels = kernels

    def decodes(self, q: Tensor, cache: LayerCache, group: RowGroup, out: Tensor) -> None:
        assert group.starts is not None
        self._kernels.decode(q, cache.keys, cache.values, group.blocks, group.starts, group.positions, out)

    def chunk(self, q: Tensor, cache: LayerCache, group: RowGroup, out: Tensor) -> None:
        assert group.starts is not None
        assert group.firsts is not None
        tables = group.blocks, group.starts, group.firsts
        self._kernels.chunks(q, cache.keys, cache.values, *tables, group.positions, out)
