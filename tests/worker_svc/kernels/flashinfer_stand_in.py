"""A small FlashInfer on the simulated device. It follows release 0.7.4, as far as a rank uses it: names and
defaults of arguments, what is copied when, and what the kernel reads.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tests.worker_svc.ragged import attend_chunk
from tests.worker_svc.simulated_cuda.device import device

PLAN_WORDS = 64
LAYOUT = "NHD"


class BatchPrefillWithPagedKVCacheWrapper:
    """The plan goes to the device out of one pinned buffer, and the host does not wait for that."""

    def __init__(self, float_workspace_buffer: Tensor, kv_layout: str = "NHD") -> None:
        assert (float_workspace_buffer.dtype, kv_layout) == (torch.uint8, LAYOUT)
        self.device = float_workspace_buffer.device
        self._pinned = torch.zeros(PLAN_WORDS, dtype=torch.int32, pin_memory=True)
        self._plan = torch.zeros(PLAN_WORDS, dtype=torch.int32, device=self.device)
        self._lengths = torch.zeros(PLAN_WORDS, dtype=torch.int32, device=self.device)

    def plan(
        self,
        qo_indptr: Tensor,
        paged_kv_indptr: Tensor,
        paged_kv_indices: Tensor,
        paged_kv_last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        *,
        causal: bool = False,
        q_data_type: torch.dtype = torch.float16,
        kv_data_type: torch.dtype | None = None,
        seq_lens: Tensor | None = None,
        non_blocking: bool = True,
    ) -> None:
        assert causal
        assert seq_lens is not None  # else it computes them, in memory that is not pinned
        firsts, lasts = qo_indptr.to("cpu"), paged_kv_last_page_len.to("cpu")
        pages = paged_kv_indptr.to("cpu").diff()
        assert seq_lens.tolist() == ((pages - 1) * page_size + lasts).tolist()
        assert len(paged_kv_indices) == int(pages.sum())
        for numbers in (qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, seq_lens):
            assert numbers.dtype == torch.int32
        self._shape = num_qo_heads, num_kv_heads, head_dim_qk, page_size
        self._dtypes = q_data_type, kv_data_type
        self._rows = int(firsts[-1])
        self._lengths[: len(seq_lens)].copy_(seq_lens, non_blocking=non_blocking)
        self._firsts = qo_indptr.to(self.device, non_blocking=non_blocking)
        self._starts = paged_kv_indptr.to(self.device, non_blocking=non_blocking)
        self._lasts = paged_kv_last_page_len.to(self.device, non_blocking=non_blocking)
        self._blocks = paged_kv_indices.to(self.device, non_blocking=non_blocking)
        # Its schedule; here the rows of each chunk.
        self._pinned[: len(lasts)] = firsts.diff()
        self._plan.copy_(self._pinned, non_blocking=True)

    def run(self, q: Tensor, paged_kv_cache: tuple[Tensor, Tensor], *, out: Tensor) -> Tensor:
        heads, kv, dim, page = self._shape
        assert q.shape == out.shape == (self._rows, heads, dim)
        assert all(x.shape[1:] == (page, kv, dim) for x in paged_kv_cache)
        assert (q.dtype, paged_kv_cache[0].dtype) == self._dtypes
        tensors: tuple[Any, ...] = (
            *(self._plan, self._lengths, self._firsts, self._starts, self._lasts, self._blocks),
            *(q, *paged_kv_cache, out),
        )
        memories = [tensor.memory for tensor in tensors]
        device().launch("FlashInfer", lambda: _attend(*memories))
        return out


def _attend(
    plan: Tensor,
    lengths: Tensor,
    firsts: Tensor,
    starts: Tensor,
    lasts: Tensor,
    blocks: Tensor,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
) -> None:
    for chunk, last in enumerate(lasts.tolist()):
        first, end = firsts[chunk : chunk + 2].tolist()
        table = blocks[int(starts[chunk]) : int(starts[chunk + 1])]
        context = (len(table) - 1) * keys.shape[1] + last
        assert context == int(lengths[chunk])
        found = attend_chunk(q[first:end], keys, values, table, context)
        planned = int(plan[chunk])
        out[first:end][:planned] = found[:planned]


def module() -> ModuleType:
    """For ``sys.modules``."""
    made: Any = ModuleType("flashinfer")
    made.__spec__ = ModuleSpec("flashinfer", None)
    made.BatchPrefillWithPagedKVCacheWrapper = BatchPrefillWithPagedKVCacheWrapper
    return made  # type: ignore[no-any-return]
