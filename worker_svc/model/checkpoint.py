"""Reading tensors of a checkpoint, each rank its own slices only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker_svc.model.config import CheckpointError, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def weight_bytes(directory: Path) -> int:
    """Size of a checkpoint's weights on disk; 0 where there are none."""
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


class Checkpoint:
    """The tensors of a directory, in one file or in the shards that an index names.

    Files are mapped, not read: a slice costs the bytes it has.
    """

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        """Tensors come out in ``dtype``. Raises CheckpointError."""
        self._dtype = dtype
        index, single = directory / INDEX, directory / SINGLE
        if index.exists():
            names: dict[str, str] = read_json(index).get("weight_map", {})
            self._files = {name: self._open(directory / name) for name in sorted(set(names.values()))}
            self._file_of = {tensor: self._files[name] for tensor, name in names.items()}
        elif single.exists():
            file = self._open(single)
            self._file_of = dict.fromkeys(file.keys(), file)
        else:
            raise CheckpointError(f"{directory}: neither {SINGLE} nor {INDEX}")
        self._directory = directory

    @staticmethod
    def _open(path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such file") from None
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: {error}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def read(
        self, name: str, shape: tuple[int, ...], *, dim: int = 0, start: int = 0, size: int = -1
    ) -> Tensor:
        """``size`` entries from ``start`` along ``dim`` of a tensor that has ``shape`` (-1: to its end).

        Raises CheckpointError for a missing tensor, one of another shape, and one that the file's index
        names but the file does not have.
        """
        found = self._find(name, shape)
        stop = shape[dim] if size < 0 else min(start + size, shape[dim])
        window = [slice(None)] * len(shape)
        window[dim] = slice(min(start, stop), stop)
        return self._take(found, tuple(window))

    def _take(self, found: Any, window: tuple[slice, ...]) -> Tensor:
        piece: Tensor = found[window]
        return piece.to(self._dtype).contiguous()

    def _find(self, name: str, shape: tuple[int, ...]) -> Any:
        if name not in self._file_of:
            raise CheckpointError(f"{self._directory}: tensor {name} is missing")
        try:
            found = self._file_of[name].get_slice(name)
        except SafetensorError as error:
            raise CheckpointError(f"{self._directory}: tensor {name}: {error}") from None
        if tuple(found.get_shape()) != shape:
            raise CheckpointError(
                f"{self._directory}: tensor {name} has shape {tuple(found.get_shape())}, not {shape}"
            )
        return found


class Headers(Checkpoint):
    """A checkpoint of which only the headers are read: pieces have a shape and a type, and no storage.

    For finding out, without its memory, whether a model is complete and what a rank would hold.
    """

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        super().__init__(directory, dtype)
        self.bytes = 0
        """Of the pieces that were asked for."""

    def _take(self, found: Any, window: tuple[slice, ...]) -> Tensor:
        piece = torch.empty(found.get_shape(), dtype=self._dtype, device="meta")[window]
        self.bytes += piece.nbytes
        return piece
