"""How fast a disk reads and writes a file, with the page cache kept out of it as far as a user can.

Disk tiers measure with this when they start, and so do the doctor and calibration.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import NamedTuple

MEASURED_BYTES = 32 << 20
"""Of the file that measuring may write."""
FIRST_BYTES = 1 << 20
SECONDS = 0.1
"""For writing and for reading; the piece that is under way then is the last."""


class DiskSpeed(NamedTuple):
    """Bytes per second."""

    read: float
    write: float


def measure(file: int, offset: int, block: int) -> DiskSpeed:
    """Overwrites up to ``MEASURED_BYTES`` from ``offset``. ``block``: bytes of one read. Raises OSError."""
    written, write = _write(file, offset)
    os.posix_fadvise(file, offset, written, os.POSIX_FADV_DONTNEED)
    return DiskSpeed(_read(file, offset, written, min(block, written)), write)


def _write(file: int, offset: int) -> tuple[int, float]:
    """Bytes that were written, and the speed of the last and largest piece, which has reached the disk."""
    written, size, began = 0, FIRST_BYTES, time.perf_counter()
    while True:
        piece = os.urandom(FIRST_BYTES) * (size // FIRST_BYTES)
        start = time.perf_counter()
        os.pwritev(file, [piece], offset + written, os.RWF_DSYNC)
        end = time.perf_counter()
        written += size
        if end - began > SECONDS or written + 2 * size > MEASURED_BYTES:
            return written, size / (end - start)
        size *= 2


def _read(file: int, offset: int, size: int, block: int) -> float:
    """Reads blocks in order, as a fetch of consecutive frames does."""
    buffer = mmap.mmap(-1, block)
    done, began = 0, time.perf_counter()
    while done + block <= size:
        done += os.preadv(file, [buffer], offset + done)
        if time.perf_counter() - began > SECONDS:
            break
    return done / (time.perf_counter() - began)
