"""Many small arrays as one: what travels to the device in a single copy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker_svc.buffers.arrays import Ints

DTYPES = {
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float64): torch.float64,
    np.dtype(np.float32): torch.float32,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lies among the words, and what it is."""

    first: int
    words: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class Packing:
    """Arrays of 8-byte and 4-byte numbers one behind the other, each from a whole word of 8 bytes on."""

    def __init__(self) -> None:
        self._pieces: list[Ints] = []
        self.size = 0  # words

    def add(self, array: npt.NDArray[np.int64] | npt.NDArray[np.float64] | npt.NDArray[np.float32]) -> Place:
        flat = array.ravel()
        odd = flat.itemsize == 4 and len(flat) % 2
        piece = (np.append(flat, flat[:1]) if odd else flat).view(np.int64)
        place = Place(self.size, len(piece), DTYPES[array.dtype], array.shape)
        self._pieces.append(piece)
        self.size += len(piece)
        return place

    def fill(self, words: Ints) -> None:
        """Writes everything into ``words``, which has ``size`` of them."""
        np.concatenate(self._pieces, out=words)


def unpack(words: Tensor, place: Place) -> Tensor:
    """The array at ``place`` as a view of ``words``."""
    found = words[place.first : place.first + place.words]
    if place.dtype != torch.int64:
        found = found.view(place.dtype)
    count = 1
    for length in place.shape:
        count *= length
    return found[:count].view(place.shape)
