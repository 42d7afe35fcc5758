"""Which numbers a rank keeps in 8 bits. All ranks of a group keep the same."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Int8(NamedTuple):
    """The rest is in the model's type."""

    weights: bool = False  # of the layers
    kv: bool = False

    def kv_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Of KV blocks; ``dtype``: the model's type."""
        return torch.int8 if self.kv else dtype


NO_INT8 = Int8()
