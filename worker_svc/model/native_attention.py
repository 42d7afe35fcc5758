"""Paged attention by the native kernels, to the blocks of the cache where they are."""

from __future__ import annotations

from torch import Tensor

from worker_svc.kernels.native import NativeKernels
from worker_svc.model.attention import RowGroup
from worker_svc.model.kv_cache import LayerCache


class NativeAttention:
    """See :class:`worker_svc.model.attention.PagedAttention`."""

    name = "native attention"
    masked = False
    ragged = False

    def __init__(self, kernels: NativeKernels) -> None:
        self._kernels = kernels

    def decodes(self, q: Tensor, cache: LayerCache, group: RowGroup, out: Tensor) -> None:
        self._kernels.attention(q, cache.keys, cache.values, group.blocks, group.positions, out)

    chunk = decodes
