"""Products of rows with weights in 8 bits, whatever multiplies: the model's loader asks for them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from worker_svc.kernels.native_weights import Int8Weight
from worker_svc.kernels.scaled_products import ScaledWeight

QuantizedWeight = Int8Weight | ScaledWeight


class QuantizedProducts(Protocol):
    """Of one type of 8 bits. Rows are quantized on the fly."""

    dtype: torch.dtype
    """Of the numbers of a weight."""

    def takes(self, outputs: int, inputs: int) -> bool:
        """Whether a weight may have this shape."""
        ...

    def weight(self, numbers: Tensor, scales: Tensor) -> QuantizedWeight:
        """Of ``numbers`` ``[outputs, inputs]`` with ``scales`` ``[outputs]``, as they are."""
        ...

    def nearest(self, weight: Tensor) -> QuantizedWeight:
        """The nearest one to a weight ``[outputs, inputs]`` in floats."""
        ...
