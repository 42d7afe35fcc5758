"""The two files of a disk tier: found or made, locked for one process, all their space allocated.

Rank r has ``rank<r>-<n>.data`` and ``rank<r>-<n>.index``. The process that locks an index has both; another
one takes another n. Of the files that no process has, those of the same layout come first, then those of
another one, which are started anew: so a new checkpoint takes the space of the old one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from worker_svc.kv_tiers.errors import TierError
from worker_svc.kv_tiers.layout import KvLayout

MAGIC = "Albireo KV tier, format 2"
HEADER_BYTES = 4096
LOCK_SECONDS = 10.0
"""For other processes to choose their files in the same directory."""


@dataclass(slots=True)
class DiskFiles:
    """Open descriptors; the one of the index holds the lock."""

    path: Path  # of the data
    index: int
    data: int
    same: bool  # whether they come from the same layout
    kept_bytes: int = 0  # of the data, from before

    def close(self) -> None:
        """A thread that is late finds no descriptor rather than one that is another file's by then.

        May be called again.
        """
        index, data, self.index, self.data = self.index, self.data, -1, -1
        for file in (data, index):
            if file >= 0:
                os.close(file)


def open_files(directory: Path, layout: KvLayout, index_bytes: int, data_bytes: int) -> DiskFiles:
    """Files of these sizes; ``index_bytes`` is without the header. Raises TierError."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        with choosing(directory):
            files = _choose(directory, layout)
            try:
                _prepare(files, layout, HEADER_BYTES + index_bytes, data_bytes)
            except BaseException:
                files.close()
                raise
            return files
    except OSError as error:
        raise TierError(f"--kv-disk {directory}: {_reason(directory, error)}") from None


def _reason(directory: Path, error: OSError) -> str:
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{error.strerror}: user {os.geteuid()} cannot write there"
        case errno.ENOENT:
            return f"{error.strerror}: {directory.parent} must exist"
        case errno.EEXIST | errno.ENOTDIR:
            return "not a directory"
        case _:
            return str(error.strerror)


@contextmanager
def choosing(directory: Path) -> Iterator[None]:
    """One process at a time looks for its files. Raises TierError and OSError."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _lock(lock):
            if time.monotonic() > deadline:
                held = f"another process has held {directory / 'lock'} for {LOCK_SECONDS:.0f} s"
                raise TierError(f"--kv-disk {directory}: {held}")
            time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _lock(file: int) -> bool:
    """Until the descriptor is closed, by the end of the process at the latest."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _choose(directory: Path, layout: KvLayout) -> DiskFiles:
    """Raises OSError."""
    names = (f"rank{layout.rank}-{number}.index" for number in count())
    there = sorted(directory.glob(f"rank{layout.rank}-*.index"))
    for same in (True, False):
        for path in there:
            index = os.open(path, os.O_RDWR)
            if _lock(index) and (not same or os.pread(index, HEADER_BYTES, 0) == header_of(layout)):
                return _with_data(path, index, same=same)
            os.close(index)
    path = next(path for name in names if not (path := directory / name).exists())
    index = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    _lock(index)  # of a new file, while no other process chooses
    return _with_data(path, index, same=False)


def header_of(layout: KvLayout) -> bytes:
    """What an index begins with. Files with another header hold nothing that this rank can use."""
    return f"{MAGIC}\n{layout.text}\n".encode().ljust(HEADER_BYTES, b"\0")


def _with_data(path: Path, index: int, *, same: bool) -> DiskFiles:
    path = path.with_suffix(".data")
    try:
        data = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        os.close(index)
        raise
    return DiskFiles(path, index, data, same)


def _prepare(files: DiskFiles, layout: KvLayout, index_bytes: int, data_bytes: int) -> None:
    """Raises TierError and OSError."""
    if files.same:
        files.kept_bytes = min(os.fstat(files.data).st_size, data_bytes)
    else:
        os.ftruncate(files.index, 0)  # before anything else: from here on no frame holds anything
    _allocate(files.path, files.data, data_bytes)
    _allocate(files.path, files.index, index_bytes)
    if not files.same:
        os.pwrite(files.index, header_of(layout), 0)


def _allocate(path: Path, file: int, size: int) -> None:
    """Raises TierError where there is not enough space, and OSError."""
    before = os.fstat(file)
    missing = size - 512 * before.st_blocks
    try:
        if before.st_size > size:
            os.ftruncate(file, size)
        if missing > _free(file):  # what is asked for first is not taken from others for a moment
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(file, min(size, before.st_size))
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise TierError(
            f"--kv-disk-size: {_mib(size)} in {path.parent} need {_mib(missing)} more, {_mib(_free(file))} "
            f"are free there ({error.strerror}); lower it, or free space"
        ) from None


def _free(file: int) -> int:
    """Bytes that this user may take on the file's file system."""
    status = os.fstatvfs(file)
    return status.f_bavail * status.f_frsize


def _mib(count: int) -> str:
    return f"{max(0, count) / (1 << 20):.0f} MiB"
