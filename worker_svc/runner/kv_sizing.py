"""How many KV blocks a rank takes: of what its operator grants and its device has left.

Runners call it once, when a rank starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from albireo.checkpoint.files import CheckpointError
from albireo.runtime.kv_memory import KvMemory
from worker_svc.cost.memory import KV_COPIES, useful_blocks
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes, blocks_in

CPU_SHARE = 0.25
"""Of the main memory that is free, what auto gives to KV blocks, over all ranks of the machine."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """One rank's blocks: what decides how many there are, in addition to the memory that is free."""

    config: ModelConfig
    tp: int
    dtype: torch.dtype
    max_seqs: int
    max_model_len: int

    def blocks(self, kv: KvMemory, free: int, auto_share: float, kept: int = 0) -> int:
        """``free``: bytes that this rank may take; auto takes ``auto_share`` of them, less ``kept``.

        Raises CheckpointError where not even one block fits, or a size is more than there is.
        """
        if kv.size is not None:
            if kv.size > free:
                raise CheckpointError(
                    f"--kv-memory asks for {kv.size >> 20} MiB on each rank, {free >> 20} MiB are free for it"
                )
            return blocks_in(kv.size, self.config, self.tp, self.dtype)
        if kv.share is not None:
            return self._with_copies(int(free * kv.share))
        useful = useful_blocks(self.max_seqs, self.max_model_len)
        return min(useful, self._with_copies(int(free * auto_share) - kept))

    def bytes_of(self, blocks: int) -> int:
        """Memory of so many blocks."""
        return blocks * block_bytes(self.config, self.tp, self.dtype)

    def _with_copies(self, memory: int) -> int:
        layers = self.config.num_layers
        return blocks_in(memory * layers // (layers + KV_COPIES), self.config, self.tp, self.dtype)
