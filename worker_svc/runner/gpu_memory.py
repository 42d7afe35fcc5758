"""What a rank's own computations take of a GPU's memory. A runner measures it when it starts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch


def most_allocated(steps: Iterable[object], device: torch.device) -> int:
    """Bytes that ``steps``, of which each is run when it is asked for, allocate at most, beyond what is
    allocated before."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    deque(steps, maxlen=0)
    return torch.cuda.max_memory_allocated(device) - before


def free_memory(device: torch.device) -> int:
    """Bytes, once torch has given back what it keeps and does not use."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]
