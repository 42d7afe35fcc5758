"""How fast a disk reads and writes KV, with the page cache kept out of it as far as a user can.

A disk tier measures with this when it starts; the doctor and calibration measure a directory.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import time
import zlib
from pathlib import Path
from typing import NamedTuple

MEASURED_BYTES = 32 << 20
"""Of a file that measuring may write."""
FIRST_BYTES = 1 << 20
SECONDS = 0.1
"""For writing, and for reading; what is under way then is the last."""


class DiskSpeed(NamedTuple):
    """Bytes per second, checksums included."""

    read: float
    write: float


def directory_speed(directory: Path) -> DiskSpeed:
    """Of a temporary file there. Raises OSError."""
    with tempfile.TemporaryFile(dir=directory) as file:
        return file_speed(file.fileno(), 0, FIRST_BYTES)


def file_speed(file: int, offset: int, block: int) -> DiskSpeed:
    """Overwrites up to ``MEASURED_BYTES`` from ``offset``. ``block``: bytes of one read. Raises OSError."""
    written, write = _write(file, offset)
    os.posix_fadvise(file, offset, written, os.POSIX_FADV_DONTNEED)
    return DiskSpeed(_read(file, offset, written, min(block, written)), write)


def _write(file: int, offset: int) -> tuple[int, float]:
    """How much was written, and the speed of the last and largest piece, until it had reached the disk."""
    written, size, began = 0, FIRST_BYTES, time.perf_counter()
    while True:
        piece = os.urandom(FIRST_BYTES) * (size // FIRST_BYTES)
        start = time.perf_counter()
        zlib.crc32(piece)
        done = _moved(os.pwritev(file, [piece], offset + written, os.RWF_DSYNC))
        end = time.perf_counter()
        written += done
        if done < size or end - began > SECONDS or written + 2 * size > MEASURED_BYTES:
            return written, done / (end - start)
        size *= 2


def _read(file: int, offset: int, size: int, block: int) -> float:
    """Reads blocks in order, as a fetch of consecutive frames does."""
    buffer = mmap.mmap(-1, block)
    done, began = 0, time.perf_counter()
    while done + block <= size and time.perf_counter() - began < SECONDS:
        done += _moved(os.preadv(file, [buffer], offset + done))
        zlib.crc32(buffer)
    return done / (time.perf_counter() - began)


def _moved(count: int) -> int:
    """Raises OSError where a call has moved nothing: there is no speed then."""
    if not count:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return count
