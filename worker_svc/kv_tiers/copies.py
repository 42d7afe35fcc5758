"""Copies between the KV blocks of the device and buffers in host memory. On the CPU both are main memory.

The threads of fetches and spills call them; :mod:`worker_svc.kv_tiers.cuda_copies` has those of a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from worker_svc.model.kv_cache import KVCache


class Copy(Protocol):
    """A copy that has been launched."""

    def wait(self) -> None:
        """Waits on the host until the whole copy is done."""
        ...

    def before_compute(self) -> None:
        """Compute stage: its current stream waits, on the device, until the copy does not touch blocks any
        more."""
        ...


class Copies(Protocol):
    """Copies of one device. Any thread may call them."""

    def buffer(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory that copies can use."""
        ...

    def mark(self) -> object:
        """Compute stage: a name for all that has been launched on its current stream, for ``gather``."""
        ...

    def gather(self, blocks: Sequence[int], out: Tensor, after: object) -> Copy:
        """Blocks to ``out`` ``[n, layers, 2, 16, kv heads, row width]``, after what ``mark`` has named.

        ``after``: None where nothing that is launched touches the blocks.
        """
        ...

    def scatter(
        self, blocks: Sequence[int], layers: range, source: Tensor, after: Sequence[Copy] = ()
    ) -> Copy:
        """``source`` ``[n, len(layers), 2, 16, kv heads, row width]`` to consecutive layers of blocks, once
        no copy of ``after`` touches blocks any more."""
        ...

    def device_buffer(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory where the layers run."""
        ...

    def bring(self, source: Tensor, out: Tensor, after: object) -> Copy:
        """``source`` ``[n, 2, ...]`` in host memory to ``out`` ``[2, n, ...]`` of a ``device_buffer``.

        ``after``: what ``mark`` has named that reads ``out``; None where nothing does.
        """
        ...


class Done:
    """A copy that was done when the call returned."""

    def wait(self) -> None: ...

    def before_compute(self) -> None: ...


DONE = Done()


class CpuCopies:
    """The calling thread copies, without the interpreter's lock."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def buffer(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def mark(self) -> object:
        return None

    def gather(self, blocks: Sequence[int], out: Tensor, after: object) -> Copy:
        self._cache.gather(torch.tensor(blocks), out)
        return DONE

    def scatter(
        self, blocks: Sequence[int], layers: range, source: Tensor, after: Sequence[Copy] = ()
    ) -> Copy:
        self._cache.scatter(torch.tensor(blocks), layers, source)
        return DONE

    def device_buffer(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def bring(self, source: Tensor, out: Tensor, after: object) -> Copy:
        out.copy_(source.transpose(0, 1))
        return DONE
