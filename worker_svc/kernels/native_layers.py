"""Layers of a model in one call of the native kernels, for steps of few rows.

Nine calls from Python for each layer, of 5 microseconds each, would be a tenth of the time that a row takes
in a small model. And all the while the interpreter is free for the other stages.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_float, c_int, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from worker_svc.kernels.interface import Heads, Norm
from worker_svc.kernels.native import NativeKernels
from worker_svc.kernels.native_weights import Int8Weight, PackedWeight

_Reduce = ctypes.CFUNCTYPE(c_int)


# The mirrors of these are in layers.h.


class _Product(ctypes.Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("scales", c_void_p),
        ("offsets", c_void_p),
        ("outputs", c_int64),
        ("inputs", c_int64),
        ("part", c_int64),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("qkv", _Product),
        ("out", _Product),
        ("gate_up", _Product),
        ("down", _Product),
        ("keys", c_void_p),
        ("values", c_void_p),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("hidden", c_int64),
        ("units", c_int64),
        ("queries", c_int64),
        ("kv", c_int64),
        ("dim", c_int64),
        ("eps", c_float),
        ("head_eps", c_float),
    )


class _Group(ctypes.Structure):
    _fields_ = (
        ("blocks", c_void_p),
        ("positions", c_void_p),
        ("columns", c_int64),
        ("first", c_int64),
        ("rows", c_int64),
    )


class _Rows(ctypes.Structure):
    _fields_ = (
        ("x", c_void_p),
        ("added", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("kv_rows", c_void_p),
        ("groups", ctypes.POINTER(_Group)),
        ("count", c_int64),
        ("num_groups", c_int64),
        ("reduce", _Reduce),
    )


_SPACE = ("normed", "qkv", "q", "attended", "gate_up", "gated", "bytes", "row_scales")


class _Space(ctypes.Structure):
    _fields_ = tuple((name, c_void_p) for name in _SPACE)


@dataclass(frozen=True, slots=True)
class Weight:
    """Of a linear layer."""

    weight: PackedWeight | Int8Weight
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Of one decoder layer, on this rank."""

    attention_norm: Norm
    mlp_norm: Norm
    heads: Heads
    qkv: Weight
    out: Weight
    gate_up: Weight
    down: Weight


@dataclass(frozen=True, slots=True)
class AttendingRows:
    """Rows from ``first`` on that attend together; see :meth:`NativeKernels.attention`."""

    first: int
    blocks: Tensor
    positions: Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """The ``n`` rows of a step."""

    rope: tuple[Tensor, Tensor]  # cosines and sines [n, 1, head_dim / 2]
    kv_rows: Tensor  # [n]
    groups: Sequence[AttendingRows]  # all rows


class NativeLayers:
    """The layers of a model, which all have one shape."""

    def __init__(self, kernels: NativeKernels, layers: Sequence[LayerWeights], head_dim: int) -> None:
        """``kernels`` must have :attr:`NativeKernels.layers`."""
        self._run = kernels.layers
        self._weights = tuple(layers)  # their addresses are in the structures
        self._layers = (_Layer * len(layers))(*map(_layer, layers))
        first = layers[0]
        heads, norm = first.heads, first.attention_norm
        self._model = _Model(
            len(norm.weight),
            first.down.weight.inputs,
            heads.queries,
            heads.kv,
            head_dim,
            norm.eps,
            heads.q_norm.eps if heads.q_norm is not None else 0.0,
        )
        self._caches: Sequence[tuple[Tensor, Tensor]] = ()
        self._rows = 0
        self._space: dict[str, Tensor] = {}

    def __call__(
        self,
        x: Tensor,
        rows: Rows,
        caches: Sequence[tuple[Tensor, Tensor]],
        sum_up: Callable[[Tensor], object] | None,
    ) -> Tensor:
        """Runs as many layers as there are ``caches``: keys and values of each, as :meth:`Kernels.rotate` has
        them.

        Changes ``x`` ``[n, hidden]`` in place and returns what is still to be added to it, good until the
        next call. ``sum_up``: adds a tensor up over the ranks, in place; None for one rank. What it raises is
        raised.
        """
        count = len(x)
        self._take_caches(caches)
        self._make_room(count, x)
        added = self._space["added"][:count]
        groups = (_Group * len(rows.groups))(*map(_group, rows.groups))
        reduction = _Reduction(sum_up, added)
        given = _Rows(
            x.data_ptr(),
            added.data_ptr(),
            rows.rope[0].data_ptr(),
            rows.rope[1].data_ptr(),
            rows.kv_rows.data_ptr(),
            groups,
            count,
            len(groups),
            reduction.function,
        )
        space = _Space(*(self._space[name].data_ptr() for name in _SPACE))
        failed = self._run(
            ctypes.byref(self._model),
            self._layers,
            len(caches),
            ctypes.byref(given),
            ctypes.byref(space),
        )
        if failed:
            raise reduction.error
        return added

    def _take_caches(self, caches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """They are the same in nearly all steps."""
        if len(caches) == len(self._caches) and all(map(_same, caches, self._caches)):
            return
        for layer, (keys, values) in zip(self._layers, caches, strict=False):
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()
        self._caches = tuple(caches)

    def _make_room(self, rows: int, x: Tensor) -> None:
        """What a step writes between the products, for the most rows that there were."""
        if rows <= self._rows:
            return
        model = self._model
        heads = model.queries * model.dim
        widths = {
            "normed": model.hidden,
            "qkv": heads + 2 * model.kv * model.dim,
            "q": heads,
            "attended": heads,
            "gate_up": 2 * model.units,
            "gated": model.units,
            "added": model.hidden,
        }
        self._space = {name: x.new_empty(rows, width) for name, width in widths.items()}
        widest = max(model.hidden, heads, model.units)
        self._space["bytes"] = torch.empty(rows, widest, dtype=torch.uint8)
        self._space["row_scales"] = torch.empty(rows)
        self._rows = rows


class _Reduction:
    """A function that the native code calls to add a tensor up. It keeps what that has raised, as no error
    can go through the code."""

    def __init__(self, sum_up: Callable[[Tensor], object] | None, part: Tensor) -> None:
        self.error: BaseException = RuntimeError("no sum has failed")
        self.function = _Reduce() if sum_up is None else _Reduce(lambda: self._call(sum_up, part))

    def _call(self, sum_up: Callable[[Tensor], object], part: Tensor) -> int:
        try:
            sum_up(part)
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self.error = error
            return 1
        return 0


def _same(cache: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return cache[0] is other[0] and cache[1] is other[1]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _product(layer: Weight) -> _Product:
    weight, bias = layer.weight, _address(layer.bias)
    packed = weight.packed.data_ptr()
    if isinstance(weight, Int8Weight):
        scales, offsets = weight.scales.data_ptr(), weight.offsets.data_ptr()
        return _Product(packed, bias, scales, offsets, weight.outputs, weight.inputs, weight.part)
    return _Product(packed, bias, None, None, weight.outputs, weight.inputs, 0)


def _layer(layer: LayerWeights) -> _Layer:
    heads = layer.heads
    return _Layer(
        layer.attention_norm.weight.data_ptr(),
        layer.mlp_norm.weight.data_ptr(),
        _address(None if heads.q_norm is None else heads.q_norm.weight),
        _address(None if heads.k_norm is None else heads.k_norm.weight),
        *map(_product, (layer.qkv, layer.out, layer.gate_up, layer.down)),
    )


def _group(group: AttendingRows) -> _Group:
    columns = group.blocks.shape[1] if group.blocks.ndim == 2 else 0
    rows = len(group.positions)
    return _Group(group.blocks.data_ptr(), group.positions.data_ptr(), columns, group.first, rows)
