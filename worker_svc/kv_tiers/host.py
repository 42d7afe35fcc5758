"""The tier in host memory: one tensor, pinned where there is a CUDA device to copy from and to."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from threading import Lock

import torch
from torch import Tensor

from worker_svc.kv_tiers.errors import TierError
from worker_svc.kv_tiers.faults import Faults
from worker_svc.kv_tiers.interface import TierSpeed
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.rows import rows_of

logger = logging.getLogger(__name__)

MEASURED_BYTES, MEASURED_COPIES = 32 << 20, 4


def host_storage(memory: int, layout: KvLayout, *, pinned: bool) -> Tensor:
    """As many frames as ``memory`` bytes hold. Raises TierError where that is none, or too many for the host.

    ``pinned``: locked in memory, for copies by the device itself. torch's own pinned tensors take the next
    power of two of their size, which may be more than there is.
    """
    frames = memory // layout.block_bytes
    if frames < 1:
        raise TierError(
            f"--kv-host-memory: {max(0, memory)} bytes hold no block, which takes {layout.block_bytes} bytes"
        )
    try:
        storage = torch.empty((frames, *layout.block_shape), dtype=layout.dtype)
        if pinned:
            status = torch.cuda.cudart().cudaHostRegister(storage.data_ptr(), storage.nbytes, 0)
            torch.cuda.check_error(int(status))
    except RuntimeError as error:  # torch's out of memory, and errors of CUDA
        size = f"{frames * layout.block_bytes >> 20} MiB"
        raise TierError(
            f"--kv-host-memory: this machine does not give {size}, lower it: {str(error).splitlines()[0]}"
        ) from None
    return storage


class HostTier:
    """Frames in a tensor ``[frames, *block_shape]`` of host memory."""

    name = "host"

    def __init__(self, storage: Tensor) -> None:
        self.storage = storage
        self.frames = len(storage)
        self.faults = Faults(logger, self.name)
        self._layers = storage.shape[1]
        self._rows = rows_of(storage)
        self._lock = Lock()
        self._keys: dict[int, bytes] = {}

    def contents(self) -> dict[int, bytes]:
        with self._lock:
            return dict(self._keys)

    def missing(self, frames: Sequence[int], keys: Sequence[bytes]) -> list[int]:
        """Positions of frames that do not hold the key, ascending."""
        with self._lock:
            return [i for i, frame in enumerate(frames) if self._keys.get(frame) != keys[i]]

    def read(self, frames: Sequence[int], keys: Sequence[bytes], layers: range, out: Tensor) -> list[int]:
        missing = set(self.missing(frames, keys))
        part = self._rows.shape[1] // self._layers
        columns = slice(layers.start * part, layers.stop * part)
        for i, row in enumerate(rows_of(out)):
            if i not in missing:
                row[:] = self._rows[frames[i], columns]
        replaced = self.missing(frames, keys)  # of which writes have begun meanwhile
        return sorted(missing.union(replaced))

    def write(self, frames: Sequence[int], keys: Sequence[bytes], blocks: Tensor) -> list[int]:
        failed = [i for i, frame in enumerate(frames) if not 0 <= frame < self.frames]
        skipped = set(failed)
        self.forget(frames)
        for i, row in enumerate(rows_of(blocks)):
            if i not in skipped:
                self._rows[frames[i]] = row
        with self._lock:
            self._keys |= {f: keys[i] for i, f in enumerate(frames) if i not in skipped}
        return failed

    def forget(self, frames: Iterable[int]) -> None:
        with self._lock:
            for frame in frames:
                self._keys.pop(frame, None)

    def measure(self) -> TierSpeed:
        """Of copies within host memory: what a device adds to them is not in it."""
        blocks = max(1, MEASURED_BYTES // self.storage[0].nbytes)
        source, target = (torch.zeros_like(self.storage[:1]).repeat(blocks, 1, 1, 1, 1, 1) for _ in range(2))
        times = []
        for _ in range(MEASURED_COPIES):
            began = time.perf_counter()
            target.copy_(source)
            times.append(time.perf_counter() - began)
        seconds = min(times) / blocks
        return TierSpeed(seconds, seconds)

    def close(self) -> None:
        with self._lock:
            self._keys.clear()
