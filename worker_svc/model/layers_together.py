"""All layers of a step in one call of the native kernels. The model makes it, for steps of few rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.native import NativeKernels
from worker_svc.kernels.native_layers import AttendingRows, LayerWeights, NativeLayers, Rows, Weight
from worker_svc.model.kv_cache import LayerCache
from worker_svc.model.linear import Linear
from worker_svc.model.transformer import Block, LayerRows


class LayersTogether:
    """See :class:`worker_svc.model.transformer.WholeLayers`."""

    def __init__(self, layers: NativeLayers, blocks: Sequence[Block], group: TPGroup) -> None:
        self._layers = layers
        self._mlp = blocks[0].mlp
        self._sum = group.all_reduce if group.size > 1 else None

    @classmethod
    def of(
        cls, blocks: Sequence[Block], kernels: NativeKernels | None, head_dim: int, group: TPGroup
    ) -> LayersTogether | None:
        """None where a product is not one of the native ``kernels``."""
        if kernels is None or kernels.layers is None:
            return None
        layers = [found for block in blocks if (found := _weights(block)) is not None]
        if len(layers) < len(blocks):
            return None
        return cls(NativeLayers(kernels, layers, head_dim), blocks, group)

    def takes(self, x: Tensor, caches: Iterable[LayerCache]) -> bool:
        return isinstance(caches, tuple) and self._mlp.is_one_tile(x)

    def __call__(self, x: Tensor, rows: LayerRows, caches: Iterable[LayerCache]) -> Tensor:
        groups = [
            AttendingRows(group.first, group.blocks, group.positions)
            for group in (*rows.plan.decodes, *rows.plan.chunks)
        ]
        found = [(cache.keys, cache.values) for cache in caches]
        return self._layers(x, Rows(rows.rope, rows.kv_rows, groups), found, self._sum)


def _weights(block: Block) -> LayerWeights | None:
    attention, mlp = block.attention, block.mlp
    products = [
        found
        for linear in (attention.qkv, attention.out.part, mlp.gate_up, mlp.down.part)
        if (found := _weight(linear)) is not None
    ]
    if len(products) < 4:
        return None
    return LayerWeights(block.attention_norm, block.mlp_norm, attention.heads, *products)


def _weight(linear: Linear) -> Weight | None:
    return None if linear.native is None else Weight(linear.native, linear.bias)
