"""The paged KV cache of one rank.

The compute stage reads and writes it; copies to and from KV tiers touch only blocks that no step writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from albireo.checkpoint.files import CheckpointError
from albireo.contract.plan import BLOCK_SIZE
from worker_svc.model.config import ModelConfig
from worker_svc.model.formats import Formats

BLOCK_FIRST = 2, 0, 1, 3, 4, 5
"""Dimensions of ``KVCache.storage`` in the order of a tier's frames."""
WIDE = torch.int64
"""Several numbers of a head, copied as one."""
TAIL = 8
"""Bytes behind the numbers of a head in 8 bits: their scale, in fp32, and zeros."""


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Keys and values of one layer, each ``[blocks, 16, kv heads of this rank, row width]``."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True)
class KVCache:
    """All layers, as views of one tensor ``[layers, 2, blocks, 16, kv heads of this rank, row width]``.

    A row is the key or the value of one head and one token: its numbers, or in int8, symmetric with a scale
    for each row, these and TAIL bytes.
    """

    layers: tuple[LayerCache, ...]
    storage: Tensor

    def clear(self, blocks: Tensor) -> None:
        """Zeroes blocks ``[n]`` that change hands, in every layer at once.

        A mask takes the weight of what lies beyond a context, but zero times NaN is NaN: leftovers of a
        request whose numbers went bad would spoil everyone who gets its blocks.
        """
        self.storage.index_fill_(2, blocks, 0)

    def gather(self, blocks: Tensor, out: Tensor | None = None) -> Tensor:
        """All layers of ``blocks`` ``[n]``, block by block: ``[n, layers, 2, 16, kv heads, row width]``."""
        return torch.index_select(self.storage.permute(*BLOCK_FIRST), 0, blocks, out=out)

    def scatter(self, blocks: Tensor, layers: range, source: Tensor) -> None:
        """Consecutive layers of ``blocks`` ``[n]`` from ``[n, len(layers), 2, 16, kv heads, row width]``."""
        # The CPU copies number by number: wide ones take two thirds of the time.
        storage = self.storage[layers.start : layers.stop].view(WIDE).permute(*BLOCK_FIRST)
        storage.index_copy_(0, blocks, source.view(WIDE))


def kv_dtype(formats: Formats, dtype: torch.dtype) -> torch.dtype:
    """Of the cache. ``dtype``: the model's."""
    return torch.int8 if formats.kv == "int8" else dtype


def row_width(head_dim: int, dtype: torch.dtype) -> int:
    """Numbers of ``dtype`` that a row has."""
    return head_dim + TAIL if dtype == torch.int8 else head_dim


def floats(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """What rows ``[..., row width]`` in int8 stand for: ``[..., head_dim]``."""
    scales = rows[..., -TAIL : -TAIL // 2].contiguous().view(torch.float32)
    return (rows[..., :-TAIL].float() * scales).to(dtype)


def block_bytes(config: ModelConfig, tp: int, dtype: torch.dtype) -> int:
    """Bytes that one block takes on a rank, over all layers. ``dtype``: of the cache."""
    row = row_width(config.head_dim, dtype) * dtype.itemsize
    return 2 * config.num_layers * BLOCK_SIZE * (config.num_kv_heads // tp) * row


def blocks_in(memory: int, config: ModelConfig, tp: int, dtype: torch.dtype) -> int:
    """How many blocks ``memory`` bytes hold. Raises CheckpointError where not even one fits."""
    size = block_bytes(config, tp, dtype)
    if memory < size:
        raise CheckpointError(
            f"{max(0, memory)} bytes for KV hold no block: one of 16 tokens takes {size} bytes; "
            "raise --kv-memory, or free memory"
        )
    return memory // size


def allocate(
    num_blocks: int, config: ModelConfig, tp: int, dtype: torch.dtype, device: torch.device
) -> KVCache:
    """A zeroed cache: what pads block tables is read as well, so it must hold numbers.

    Raises CheckpointError where the device has not enough memory for it.
    """
    width = row_width(config.head_dim, dtype)
    shape = (config.num_layers, 2, num_blocks, BLOCK_SIZE, config.num_kv_heads // tp, width)
    try:
        storage = torch.zeros(shape, dtype=dtype, device=device)
    except RuntimeError as error:  # torch's out of memory, of any device
        raise CheckpointError(f"no room for the KV blocks, lower --kv-memory: {error}") from None
    return KVCache(tuple(LayerCache(keys, values) for keys, values in storage), storage)
