"""Structs of arrays: one declaration for the numpy arrays on the host and the tensors on the device.

A struct is a dataclass whose array fields are annotated with their dtype and shape::

    @dataclass(frozen=True, slots=True)
    class Rows(Struct[A]):
        slots: Annotated[A, int64("rows")]
        blocks: Annotated[A, int64("rows", "blocks")]
        padded: bool

``Rows[HostArray]`` holds numpy arrays. :class:`Packing` writes them into one array of words, in the order of
the fields, so that one copy brings them to the device, and gives ``Rows[Tensor]``: the same struct of views
of the words. A field may also be a struct, a tuple of structs, or None; all other fields are taken over.

The input stage of a rank uses this for each step, see :mod:`worker_svc.batch.staging`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Generic, Self, TypeVar, cast, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from worker_svc.buffers.arrays import HostArray, Ints

A = TypeVar("A")
"""Of a struct's arrays: HostArray or Tensor."""

TORCH_DTYPES = {
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float64): torch.float64,
    np.dtype(np.float32): torch.float32,
}


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Dtype and shape of one field. Dimensions have names: within a struct, equal names are equal lengths."""

    dtype: np.dtype[Any]
    shape: tuple[str, ...]


def int64(*shape: str) -> ArraySpec:
    return ArraySpec(np.dtype(np.int64), shape)


def float64(*shape: str) -> ArraySpec:
    return ArraySpec(np.dtype(np.float64), shape)


def float32(*shape: str) -> ArraySpec:
    return ArraySpec(np.dtype(np.float32), shape)


class Struct(Generic[A]):
    """Base class of all structs, which are frozen dataclasses."""

    __slots__ = ()

    def map_arrays(self, change: Callable[[A], A]) -> Self:
        """The same struct with every array changed, in the order of the fields."""
        return cast(Self, _map(self, change))


S = TypeVar("S", bound=Struct[Tensor])


class Packing:
    """Where the arrays of one host struct lie among words of 8 bytes.

    One array follows the other, each from a whole word on; ``size`` is the number of words.
    """

    def __init__(self, host: Struct[HostArray]) -> None:
        """Raises ValueError for an array that is not what its field declares."""
        self._host = host
        self._arrays = list(_checked_arrays(host))
        self._lengths = [_words(array) for array in self._arrays]
        self.size = sum(self._lengths)

    def fill(self, words: Ints) -> None:
        """Writes all arrays into ``words``, ``[size]``."""
        np.concatenate([_as_words(array) for array in self._arrays], out=words)

    def write(self, words: Tensor) -> None:
        """Likewise, into the first of ``words`` on the device. Waits for the copy."""
        host = torch.empty(self.size, dtype=torch.int64)
        self.fill(host.numpy())
        words[: self.size].copy_(host)

    def span(self, part: Struct[HostArray]) -> slice:
        """Which words hold ``part``, a struct within the struct, of one array at least."""
        own = list(_checked_arrays(part))
        first = next(place for place, array in enumerate(self._arrays) if array is own[0])
        before = sum(self._lengths[:first])
        return slice(before, before + sum(self._lengths[first : first + len(own)]))

    def views(self, kind: type[S], words: Tensor) -> S:
        """The struct on the device of ``words``, whose first ``size`` entries hold it: views, no copies.

        ``kind``: the host struct's class, of tensors. Raises TypeError for another class.
        """
        if get_origin(kind) is not type(self._host):
            raise TypeError(f"{type(self._host).__name__} cannot become {kind}")
        pieces = zip(words[: self.size].split(self._lengths), self._arrays, strict=True)
        tensors = (_view(piece, array) for piece, array in pieces)
        return cast(S, _map(self._host, lambda _: next(tensors)))


def _fields(struct: object) -> tuple[tuple[str, ArraySpec | None], ...]:
    """Names of a struct's fields, each with its spec; None for a field that is no array."""
    return _declared(type(struct))  # type: ignore[arg-type]  # for mypy, classes cannot be hashed


@cache
def _declared(kind: type[Any]) -> tuple[tuple[str, ArraySpec | None], ...]:
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in fields(kind):
        metadata = getattr(hints[field.name], "__metadata__", ())
        found.append((field.name, next((item for item in metadata if isinstance(item, ArraySpec)), None)))
    return tuple(found)


def _checked_arrays(struct: Struct[HostArray]) -> Iterator[HostArray]:
    lengths: dict[str, int] = {}
    for name, spec in _fields(struct):
        value = getattr(struct, name)
        if isinstance(value, Struct):
            yield from _checked_arrays(value)
        elif isinstance(value, tuple):
            for item in value:
                yield from _checked_arrays(item)
        elif spec is not None and value is not None:
            if value.dtype != spec.dtype or value.ndim != len(spec.shape):
                raise ValueError(f"{type(struct).__name__}.{name}: {value.dtype} {value.shape}, not {spec}")
            for dimension, length in zip(spec.shape, value.shape, strict=True):
                if lengths.setdefault(dimension, length) != length:
                    raise ValueError(
                        f"{type(struct).__name__}.{name}: {dimension} is {length}, not {lengths[dimension]}"
                    )
            yield value


def _map(struct: Struct[Any], change: Callable[[Any], Any]) -> Struct[Any]:
    values = []
    for name, spec in _fields(struct):
        value = getattr(struct, name)
        if isinstance(value, Struct):
            value = _map(value, change)
        elif isinstance(value, tuple):
            value = tuple(_map(item, change) for item in value)
        elif spec is not None and value is not None:
            value = change(value)
        values.append(value)
    return type(struct)(*values)


def _words(array: HostArray) -> int:
    return -(-array.nbytes // 8)


def _as_words(array: HostArray) -> Ints:
    flat = array.ravel()
    if flat.nbytes % 8:  # 4-byte numbers, an odd number of them: one more fills the last word
        flat = np.append(flat, flat[:1])
    words: Ints = flat.view(np.int64)
    return words


def _view(piece: Tensor, array: HostArray) -> Tensor:
    """``piece``: the words that hold ``array``."""
    if array.itemsize == 4:
        piece = piece.view(TORCH_DTYPES[array.dtype])[: array.size]
    elif array.dtype != np.int64:
        piece = piece.view(TORCH_DTYPES[array.dtype])
    return piece if array.ndim == 1 else piece.view(array.shape)
