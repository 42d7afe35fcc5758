"""The files of a directory that hold a checkpoint's tensors. Read when a rank starts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from albireo.checkpoint.files import CheckpointError, read_json
from worker_svc.model.fields import Fields

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
"""More is no header: safetensors' own limit."""
OTHER_FORMATS = ("pytorch_model*.bin", "*.pth", "*.pt", "*.gguf", "*.h5", "*.msgpack")


def weight_files(directory: Path) -> list[Path]:
    """Files that hold the tensors: the single one where there is one, which transformers prefers as well over
    an index that a sharded copy may have left behind; else those that the index names.

    Raises CheckpointError for an index that names none. The files need not exist.
    """
    if (directory / SINGLE).exists():
        return [directory / SINGLE]
    if not (directory / INDEX).exists():
        raise CheckpointError(_no_weights(directory))
    names: set[str] = set()
    for name in _weight_map(directory).values():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{directory / INDEX}: weight_map: {name!r} is no name of a file")
        names.add(name)
    return [directory / name for name in sorted(names)]


def weight_bytes(directory: Path) -> int:
    """Size of a checkpoint's weights on disk; 0 where there are none."""
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


def weights_fingerprint(directory: Path) -> str:
    """16 hexadecimal digits, of the names and sizes of these files and of the tensors in them, by their
    headers: not of the numbers, which would take as long as loading. Raises CheckpointError."""
    state = hashlib.blake2b(digest_size=8)
    for path in weight_files(directory):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = file.read(min(length, MAX_HEADER_BYTES))
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}; download the whole checkpoint") from None
        state.update(f"{path.name}\0{path.stat().st_size}\0".encode() + hashlib.sha256(header).digest())
    return state.hexdigest()


def _weight_map(directory: Path) -> dict[str, Any]:
    """Tensor to file. Raises CheckpointError."""
    index = Fields(read_json(directory / INDEX), str(directory / INDEX))
    found = index.fields("weight_map")
    if found is None:
        raise index.wrong("weight_map", "names no tensors; download the checkpoint again")
    return {name: found.raw(name) for name in found}


def _no_weights(directory: Path) -> str:
    other = sorted(path.name for pattern in OTHER_FORMATS for path in directory.glob(pattern))
    if other:
        return (
            f"{directory}: neither {SINGLE} nor {INDEX}, but {other[0]}; only safetensors are read: load the "
            "model with transformers and save it with save_pretrained"
        )
    return f"{directory}: neither {SINGLE} nor {INDEX}; download the whole checkpoint"
