"""torch's attention on the simulated device: its choice of a kernel asks the device."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.worker_svc.simulated_cuda.tensor import SimulatedTensor, filled

on_host = F.scaled_dot_product_attention


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """One kernel. As ``F.scaled_dot_product_attention``."""
    if not isinstance(query, SimulatedTensor):
        return on_host(query, key, value, **options)

    def memory(argument: Any) -> Any:
        return argument.memory if isinstance(argument, SimulatedTensor) else argument

    q, k, v = memory(query), memory(key), memory(value)
    inner = {name: memory(option) for name, option in options.items()}
    like = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device="meta")
    return filled("attention", like, lambda: on_host(q, k, v, **inner))
