"""One rank's share of a checkpoint's tensors, on its device, as its products take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.native_weights import PANEL
from worker_svc.kernels.quantized import QuantizedProducts, QuantizedWeight
from worker_svc.model.weight_reader import QuantizedTensor, Slice, Weights


class RankWeights:
    """Reads slices of ``weights``, on the CPU, and puts each together."""

    def __init__(
        self, weights: Weights, group: TPGroup, device: torch.device, products: QuantizedProducts | None
    ) -> None:
        """``products``: with weights in 8 bits; None where all are multiplied in the model's type."""
        self._weights = weights
        self._group = group
        self._device = device
        self._products = products
        self.left: list[str] = []
        """Weights in the model's type because no product in 8 bits takes their shape."""

    def whole(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor that every rank has."""
        return self._weights.read(name, shape).to(self._device)

    def shares(self, shapes: Mapping[str, tuple[int, ...]], dim: int = 0) -> Tensor:
        """Of tensors that are cut along ``dim``, one after the other."""
        parts = [self._weights.read(name, shape, self._share(shape, dim)) for name, shape in shapes.items()]
        return torch.cat(parts).to(self._device)

    def weight(self, shapes: Mapping[str, tuple[int, int]], dim: int = 0) -> Tensor | QuantizedWeight:
        """Likewise of weights ``[outputs, inputs]``, which become one: quantized as the files have them, or
        here."""
        products = self._products
        if products is not None and (found := self._stored(shapes, dim)) is not None:
            numbers, scales = (torch.cat(parts).to(self._device) for parts in zip(*found, strict=True))
            if numbers.dtype == products.dtype and products.takes(*numbers.shape):
                return products.weight(numbers, scales)
        return self.quantized(next(iter(shapes)), self.shares(shapes, dim))

    def quantized(self, name: str, weight: Tensor) -> Tensor | QuantizedWeight:
        """A weight in floats in the type that it is multiplied in. ``name``: for :attr:`left`."""
        if self._products is None:
            return weight
        if self._products.takes(*weight.shape):
            return self._products.nearest(weight)
        self.left.append(name)
        return weight

    def rows_of_table(self, name: str, rows: int, width: int) -> Tensor:
        """Of a table over the vocabulary, padded with zeros to the same number on each rank: whole panels of
        a native product."""
        size = -(-rows // (self._group.size * PANEL)) * PANEL
        found = self._weights.read(name, (rows, width), Slice(0, self._group.rank * size, size))
        if len(found) < size:
            found = torch.cat([found, found.new_zeros(size - len(found), width)])
        return found.to(self._device)

    def _stored(self, shapes: Mapping[str, tuple[int, int]], dim: int) -> Sequence[QuantizedTensor] | None:
        """As the files have them; None where one is in floats there."""
        found = [
            self._weights.read_quantized(name, shape, self._share(shape, dim))
            for name, shape in shapes.items()
        ]
        quantized = [part for part in found if part is not None]
        return quantized if len(quantized) == len(found) else None

    def _share(self, shape: tuple[int, ...], dim: int) -> Slice:
        size = shape[dim] // self._group.size
        return Slice(dim, self._group.rank * size, size)
