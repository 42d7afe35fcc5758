"""Reads the weights of a checkpoint: tensors or slices of them, in one dtype or, quantized, as they are.

:class:`worker_svc.model.loader.Loader` calls it when a rank starts, which reads its own slices only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from albireo.checkpoint.files import CheckpointError
from worker_svc.model.weight_files import weight_files

FLOATS = ("BF16", "F16", "F32", "F64")
"""Types of tensors that are read, as safetensors calls them."""
QUANTIZED = "I8", "F8_E4M3"
"""Types of tensors that are read where there are scales."""
SCALE = "_scale"
"""Behind the name of a quantized tensor: its scales (compressed-tensors)."""
PREFIX = "model."
"""Of all tensors but the head's; a model saved without its head may have none."""


class QuantizedTensor(NamedTuple):
    """A weight in 8 bits, symmetric."""

    numbers: Tensor  # [outputs, inputs] int8 or float8_e4m3fn
    scales: Tensor  # [outputs] fp32

    def floats(self, dtype: torch.dtype) -> Tensor:
        """What it stands for."""
        return (self.numbers.float() * self.scales[:, None]).to(dtype)


class Slice(NamedTuple):
    """``size`` entries of a tensor from ``start`` along ``dim``; -1: to its end, which none is beyond."""

    dim: int = 0
    start: int = 0
    size: int = -1

    def window(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Of a tensor that has ``shape``."""
        most = shape[self.dim]
        stop = most if self.size < 0 else min(self.start + self.size, most)
        window = [slice(None)] * len(shape)
        window[self.dim] = slice(min(self.start, stop), stop)
        return tuple(window)


WHOLE = Slice()


class Weights(Protocol):
    """Where the loader takes tensors from. ``name`` as in a whole model."""

    directory: Path

    def __contains__(self, name: str) -> bool: ...

    def unread(self) -> list[str]:
        """Tensors that nothing was read of."""
        ...

    def read(self, name: str, shape: tuple[int, ...], part: Slice = WHOLE) -> Tensor:
        """A part of a tensor that has ``shape``."""
        ...

    def read_quantized(
        self, name: str, shape: tuple[int, ...], part: Slice = WHOLE
    ) -> QuantizedTensor | None:
        """Likewise; None where it is not quantized."""
        ...


class WeightReader:
    """The tensors of a directory, in one file or in the shards that an index names.

    Files are mapped, not read: a slice costs the bytes it has.
    """

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        """Tensors come out in ``dtype``. Raises CheckpointError."""
        self._dtype = dtype
        self.directory = directory
        self._file_of = {name: file for path in weight_files(directory) for name, file in _tensors(path)}
        self._prefix = PREFIX if any(name.startswith(PREFIX) for name in self._file_of) else ""
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._stored(name) in self._file_of

    def unread(self) -> list[str]:
        """Tensors that nothing was read of, without the buffers that old checkpoints carry along."""
        return sorted(name for name in self._file_of.keys() - self._read if not name.endswith(".inv_freq"))

    def read(self, name: str, shape: tuple[int, ...], part: Slice = WHOLE) -> Tensor:
        """A part of a tensor that has ``shape``.

        ``name`` as in a whole model. Raises CheckpointError for a missing tensor, and one of another shape or
        of a type that is neither a plain floating-point one nor one of 8 bits with scales.
        """
        found = self._find(name, shape)
        return self._take(found, self._find_scales(name, found), part.window(shape))

    def read_quantized(
        self, name: str, shape: tuple[int, ...], part: Slice = WHOLE
    ) -> QuantizedTensor | None:
        """Likewise, as it is in the files; None where it has no 8 bits there."""
        found = self._find(name, shape)
        scales = self._find_scales(name, found)
        return None if scales is None else _quantized(found, scales, part.window(shape))

    def _take(self, found: Any, scales: Any, window: tuple[slice, ...]) -> Tensor:
        if scales is not None:
            return _quantized(found, scales, window).floats(self._dtype)
        piece: Tensor = found[window]
        return piece.to(self._dtype).contiguous()

    def _find(self, name: str, shape: tuple[int, ...]) -> Any:
        stored = self._stored(name)
        if stored not in self._file_of:
            raise CheckpointError(f"{self.directory}: tensor {stored} is missing")
        found = self._file_of[stored].get_slice(stored)
        self._read.add(stored)
        if tuple(found.get_shape()) != shape:
            raise CheckpointError(
                f"{self.directory}: tensor {stored} has shape {tuple(found.get_shape())}, not {shape} as "
                "config.json says"
            )
        if found.get_dtype() not in FLOATS and self._find_scales(name, found) is None:
            raise CheckpointError(
                f"{self.directory}: tensor {stored} is {found.get_dtype()}, as in quantized models; "
                f"supported: {', '.join(FLOATS)}"
            )
        return found

    def _find_scales(self, name: str, found: Any) -> Any:
        """Those of a quantized tensor ``found``; None for others. Raises CheckpointError for another number
        of them than one for each output, or of FP8 one for all."""
        stored = self._stored(name) + SCALE
        if found.get_dtype() not in QUANTIZED or stored not in self._file_of:
            return None
        self._read.add(stored)
        scales = self._file_of[stored].get_slice(stored)
        outputs = found.get_shape()[0]
        shapes, one = [(outputs,), (outputs, 1)], ""
        if found.get_dtype() == "F8_E4M3":
            shapes, one = [*shapes, (1,), ()], ", or one for all"
        if tuple(scales.get_shape()) not in shapes or scales.get_dtype() not in FLOATS:
            raise CheckpointError(
                f"{self.directory}: tensor {stored} is {scales.get_dtype()} of shape "
                f"{tuple(scales.get_shape())}, not a number for each of {outputs} outputs{one}"
            )
        return scales

    def _stored(self, name: str) -> str:
        """What the files call a tensor."""
        return self._prefix + name.removeprefix(PREFIX) if name.startswith(PREFIX) else name


def _quantized(found: Any, scales: Any, window: tuple[slice, ...]) -> QuantizedTensor:
    piece: Tensor = found[window]
    every: Tensor = scales[...].float().flatten().expand(found.get_shape()[0])
    return QuantizedTensor(piece.contiguous(), every[window[0]])


def _tensors(path: Path) -> Sequence[tuple[str, Any]]:
    """Names in a file, each with the file. What a file has counts, whatever an index says of it."""
    try:
        file: Any = safe_open(path, framework="pt")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; download the whole checkpoint") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {error}; download it again") from None
    names: list[str] = file.keys()
    return [(name, file) for name in names]


class HeaderReader(WeightReader):
    """A checkpoint of which only the headers are read: pieces have a shape and a type, and no storage.

    For finding out, without its memory, whether a model is complete and what a rank would hold.
    """

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        super().__init__(directory, dtype)
        self.bytes = 0
        """Of the pieces that were read so far."""

    def _take(self, found: Any, scales: Any, window: tuple[slice, ...]) -> Tensor:
        piece = torch.empty(found.get_shape(), dtype=self._dtype, device="meta")[window]
        self.bytes += piece.nbytes
        return piece
