"""The index of a disk tier: of each frame the key, and a checksum up to the end of each layer's part.

The checksum of a part is the CRC-32 of the frame from its begin to the part's end. A CRC-32 can go on from an
earlier one, so one call checks any consecutive layers: from the checksum before them to that of the last one.

On the disk an entry of a frame is the key, the checksum of each part, and the CRC-32 of both. An entry whose
own checksum does not fit, such as zeros, is of a frame that holds nothing. The order of writes, which is that
of the kernel's page cache, makes the entry of a frame absent before its data change and present after; what
the disk has after a loss of power may be in any order, and then the checksums of the parts do not fit.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock

import numpy as np

from albireo.contract.tiers import KEY_BYTES
from worker_svc.kv_tiers.disk_files import HEADER_BYTES, DiskFiles

CRC_BYTES = 4


def entry_bytes(layers: int) -> int:
    return KEY_BYTES + CRC_BYTES * (layers + 1)


class DiskIndex:
    """In memory and in its file. Two threads may use it for different frames."""

    def __init__(self, files: DiskFiles, frames: int, layers: int) -> None:
        self._files = files
        self._size = entry_bytes(layers)
        self._lock = Lock()
        self._keys: dict[int, bytes] = {}
        self._sums = np.zeros((frames, layers + 1), dtype="<u4")  # before the first layer, and after each

    def load(self, frames: int) -> None:
        """What the file says of the first frames. Raises OSError."""
        stored = _read_all(self._files.index, frames * self._size, HEADER_BYTES)
        entries = np.frombuffer(stored, dtype=np.uint8)
        entries = entries[: len(entries) // self._size * self._size].reshape(-1, self._size)
        for frame in np.flatnonzero(entries.any(axis=1)).tolist():
            entry = entries[frame].tobytes()
            if _sealed(entry[:-CRC_BYTES]) == entry:
                self._keys[frame] = entry[:KEY_BYTES]
                self._sums[frame, 1:] = np.frombuffer(entry[KEY_BYTES:-CRC_BYTES], dtype="<u4")

    def contents(self) -> dict[int, bytes]:
        with self._lock:
            return dict(self._keys)

    def sums(
        self, frames: Sequence[int], keys: Sequence[bytes], layers: range
    ) -> list[tuple[int, int] | None]:
        """Of each frame the checksum before these layers, and after them; None where it does not hold the
        key."""
        with self._lock:
            return [
                (self._sums.item(frame, layers.start), self._sums.item(frame, layers.stop))
                if self._keys.get(frame) == key
                else None
                for frame, key in zip(frames, keys, strict=True)
            ]

    def drop(self, frame: int, key: bytes) -> None:
        """It does not hold ``key``, whether or not it was said to. Raises OSError."""
        with self._lock:
            if self._keys.get(frame) != key:
                return
            del self._keys[frame]
        self._write(frame, bytes(self._size))

    def clear(self, frames: Sequence[int]) -> None:
        """They hold nothing, in memory whatever happens. Raises OSError."""
        with self._lock:
            for frame in frames:
                self._keys.pop(frame, None)
        for first, number in runs(frames):
            self._write(first, bytes(number * self._size))

    def store(self, first: int, keys: Sequence[bytes], sums: Sequence[Sequence[int]]) -> None:
        """Consecutive frames, whose data have been written. Raises OSError; then they hold nothing."""
        rows = [np.array(row, dtype="<u4") for row in sums]
        entries = [_sealed(key + row.tobytes()) for key, row in zip(keys, rows, strict=True)]
        self._write(first, b"".join(entries))
        with self._lock:
            for frame, (key, row) in enumerate(zip(keys, rows, strict=True), first):
                self._keys[frame] = key
                self._sums[frame, 1:] = row

    def _write(self, first: int, entries: bytes) -> None:
        done = os.pwrite(self._files.index, entries, HEADER_BYTES + first * self._size)
        if done < len(entries):
            raise OSError(f"{done} of {len(entries)} bytes written")


def runs(frames: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Each first of consecutive frames, and how many they are, in the given order."""
    first = number = 0
    for frame in frames:
        if number and frame == first + number:
            number += 1
            continue
        if number:
            yield first, number
        first, number = frame, 1
    if number:
        yield first, number


def _sealed(content: bytes) -> bytes:
    return content + zlib.crc32(content).to_bytes(CRC_BYTES, "little")


def _read_all(file: int, size: int, offset: int) -> bytes:
    """As much of it as the file has. Raises OSError."""
    found = bytearray()
    while len(found) < size and (piece := os.pread(file, size - len(found), offset + len(found))):
        found += piece
    return bytes(found)
