"""The shortest time that a step can take on a device: benchmarks of the model alone compare steps with it.

It is the longer of reading weights and KV once at the memory bandwidth, and all multiplications at the rate
of a large matrix product. Both are measured by the process that measures the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch

from albireo.planning.calibration.limits import copy_bandwidth, multiply_rate, read_bandwidth
from worker_svc.cost.shape import ModelShape
from worker_svc.cost.work import StepWork

Bound = Literal["memory", "multiplications"]


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """Measured on one device."""

    read: float  # bytes per second, by a sum
    copy: float  # bytes per second, read and written
    operations: float  # per second, two for each multiplication

    @classmethod
    def measured(cls, device: torch.device, dtype: torch.dtype) -> Self:
        """``dtype``: of the matrices that are multiplied."""
        return cls(read_bandwidth(device), copy_bandwidth(device), multiply_rate(device, dtype))

    @property
    def bandwidth(self) -> float:
        """Bytes per second: the better of reading and copying, which both fall short of what there is."""
        return max(self.read, self.copy)

    def of_step(self, shape: ModelShape, work: StepWork) -> tuple[float, Bound]:
        """Seconds, and by what they are bound. Intermediate results are taken to cost nothing."""
        read = shape.layer_parameters + (shape.head_parameters if work.samples else 0)
        moved = read * shape.dtype_bytes + work.context * shape.kv_token_bytes
        products = shape.layer_parameters * work.rows + shape.head_parameters * work.samples
        pairs = work.context + work.prefill_pairs
        computed = 2 * products + pairs * shape.pair_operations
        by: dict[Bound, float] = {
            "memory": moved / self.bandwidth,
            "multiplications": computed / self.operations,
        }
        bound = max(by, key=lambda name: by[name])
        return by[bound], bound
