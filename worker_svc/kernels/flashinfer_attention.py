"""FlashInfer (Ye et al. 2025, arXiv 2501.01005) for chunks, where it is installed. Written for release 0.7.4.

It compiles its kernels with CUDA's compiler when they are first asked for, unless the package
`flashinfer-jit-cache` has them.
"""

from __future__ import annotations

from itertools import accumulate, cycle
from typing import Any

import torch
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from worker_svc.kernels.interface import AttendChunks, Chunks, Heads

LEAST_BYTES = 128 << 20
"""Of the workspace: what FlashInfer recommends."""
TILE_ROWS = 128
"""Of the largest tile."""
PLANS = 4
"""As many steps as the compute stage is ahead of the device: one that it launches, two that are queued for
the output stage, and one whose ids that fetches."""


class FlashInferAttention:
    """See :class:`worker_svc.kernels.interface.ChunkAttention`.

    A step is planned on the host, from what the host knows. The plan is copied to the device out of a pinned
    buffer of FlashInfer's, which the next plan by the same wrapper overwrites: so several take turns.
    """

    name = "FlashInfer"

    def __init__(
        self, device: torch.device, dtype: torch.dtype, heads: Heads, head_dim: int, multiprocessors: int
    ) -> None:
        """``heads``: of a rank; ``multiprocessors``: of the GPU. Raises ImportError where it is not
        installed."""
        from flashinfer import BatchPrefillWithPagedKVCacheWrapper  # for some GPUs only

        size = workspace_bytes(heads, head_dim, multiprocessors)
        workspace = torch.empty(size, dtype=torch.uint8, device=device)
        wrappers = [BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD") for _ in range(PLANS)]
        self._turns = cycle([_Turn(wrapper) for wrapper in wrappers])
        self._shape = heads.queries, heads.kv, head_dim, BLOCK_SIZE
        self._dtype = dtype

    def of_step(self, chunks: Chunks) -> AttendChunks:
        turn = next(self._turns)
        turn.copied.synchronize()  # PLANS steps ago: done, unless the device is that far behind
        pages = [blocks_for(context) for context in chunks.contexts]
        turn.wrapper.plan(
            _pinned([0, *accumulate(chunks.counts)]),
            _pinned([0, *accumulate(pages)]),
            chunks.blocks.int(),
            _pinned([(context - 1) % BLOCK_SIZE + 1 for context in chunks.contexts]),
            *self._shape,
            causal=True,
            q_data_type=self._dtype,
            kv_data_type=self._dtype,
            seq_lens=_pinned(chunks.contexts),
        )
        turn.copied.record()

        def attend(q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
            turn.wrapper.run(q, (keys, values), out=out)

        return attend


class _Turn:
    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper
        self.copied = torch.cuda.Event()  # its last plan is on the device


def workspace_bytes(heads: Heads, head_dim: int, multiprocessors: int) -> int:
    """Enough for what a plan keeps of the parts of long contexts, in fp32: what every query head has found,
    and its weight. Heads of one KV head share tiles, of which there are two for each multiprocessor."""
    tiles = 2 * multiprocessors // heads.kv
    return max(LEAST_BYTES, heads.queries * tiles * TILE_ROWS * (head_dim + 1) * 4)


def _pinned(numbers: list[int] | tuple[int, ...]) -> Tensor:
    """For copies that the host does not wait for."""
    return torch.tensor(numbers, dtype=torch.int32).pin_memory()
