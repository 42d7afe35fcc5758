"""What one frame of a KV tier holds on a rank, and whose KV it is.

A frame holds a block with its layers one after the other, in each the keys before the values:
``[layers, 2, 16, kv heads of the rank, row width]``. One layer's share of it is a *part*.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from albireo.checkpoint.files import CheckpointError
from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract.plan import BLOCK_SIZE
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import row_width
from worker_svc.model.weight_files import weight_files

SAMPLES, SAMPLE_BYTES = 256, 4096
"""Of each file of weights: pieces over its length that are compared."""


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Sizes of a block and of its parts on one rank."""

    layers: int
    kv_heads: int  # of this rank
    row_width: int  # of a head and a token
    dtype: torch.dtype  # of the cache
    checkpoint: str  # what tells its weights from all others
    tp: int
    rank: int

    @classmethod
    def of(cls, config: ModelConfig, dtype: torch.dtype, checkpoint: str, *, tp: int, rank: int) -> Self:
        """``checkpoint``: ``checkpoint_identity`` of its directory, and what else changes its KV."""
        heads = config.num_kv_heads // tp
        return cls(config.num_layers, heads, row_width(config.head_dim, dtype), dtype, checkpoint, tp, rank)

    @property
    def part_shape(self) -> tuple[int, ...]:
        """Of one layer of a block."""
        return (2, BLOCK_SIZE, self.kv_heads, self.row_width)

    @property
    def block_shape(self) -> tuple[int, ...]:
        return (self.layers, *self.part_shape)

    @property
    def part_bytes(self) -> int:
        return 2 * BLOCK_SIZE * self.kv_heads * self.row_width * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        return self.layers * self.part_bytes

    @property
    def text(self) -> str:
        """Equal for two ranks exactly where each can use what the other has kept."""
        shape = f"layers={self.layers} kv_heads={self.kv_heads} row_width={self.row_width}"
        dtype = str(self.dtype).removeprefix("torch.")
        rank = f"rank={self.rank}/{self.tp}"
        return f"checkpoint={self.checkpoint} {shape} dtype={dtype} {rank} block={BLOCK_SIZE}"


def checkpoint_identity(directory: Path) -> str:
    """32 hexadecimal digits that differ where KV would: of config and tokenizer, and of the weights' files.

    ``weights_fingerprint`` is the same for two checkpoints of one shape, so it is not enough here. Of each
    file this takes name, size, time of change, and pieces over its whole length: all its numbers would take
    as long as loading. Raises CheckpointError.
    """
    state = hashlib.blake2b(fingerprint(directory).encode(), digest_size=16)
    for path in weight_files(directory):
        try:
            status = path.stat()
            state.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
            with path.open("rb") as file:
                for sample in range(SAMPLES):
                    file.seek(sample * max(0, status.st_size - SAMPLE_BYTES) // (SAMPLES - 1))
                    state.update(file.read(SAMPLE_BYTES))
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}; download the whole checkpoint") from None
    return state.hexdigest()
