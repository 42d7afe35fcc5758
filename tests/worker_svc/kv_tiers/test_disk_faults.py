"""A disk that fails: a block that cannot be kept counts as absent, all others are kept."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker_svc.kv_tiers.blocks import FRAMES, LAYOUT, blocks, flip, key, missing, write
from worker_svc.kv_tiers.disk import DiskTier
from worker_svc.kv_tiers.disk_files import HEADER_BYTES
from worker_svc.kv_tiers.disk_index import entry_bytes

ALL = list(range(FRAMES))
SIZE = LAYOUT.block_bytes
Call = Callable[[int, Sequence[memoryview], int], int]


def data(directory: Path) -> Path:
    return directory / "kv" / "rank0-0.data"


def index(directory: Path) -> Path:
    return directory / "kv" / "rank0-0.index"


def bad_sector(call: Call, code: int, offset: int, whole: bool = True) -> Call:
    """The call on a disk that cannot move the byte at ``offset``; what comes before it may arrive."""

    def moved(file: int, rows: Sequence[memoryview], start: int) -> int:
        size = sum(map(len, rows))
        if not start <= offset < start + size:
            return call(file, rows, start)
        if whole or start == offset:
            raise OSError(code, os.strerror(code))
        call(file, rows, start)
        return offset - start

    return moved


@pytest.mark.parametrize("byte", [0, LAYOUT.part_bytes, SIZE - 1], ids=["first", "layer 1", "last"])
def test_a_flipped_bit_costs_its_block(disk: DiskTier, tmp_path: Path, byte: int) -> None:
    write(disk, ALL, ALL)
    flip(data(tmp_path), 5 * SIZE + byte, bit=3)
    assert missing(disk, ALL, ALL) == [5]
    assert disk.contents().keys() == set(ALL) - {5}
    assert disk.faults.counts == {"checksum": 1}
    assert missing(disk, ALL, ALL) == [5]
    assert disk.faults.counts == {"checksum": 1}  # absent from then on


def test_a_flipped_bit_is_seen_by_the_read_of_its_layer(disk: DiskTier, tmp_path: Path) -> None:
    write(disk, [5], [5])
    flip(data(tmp_path), 5 * SIZE + LAYOUT.part_bytes)
    assert missing(disk, [5], [5], range(1)) == []
    assert missing(disk, [5], [5], range(1, 2)) == [0]
    assert missing(disk, [5], [5], range(2, 3)) == [0]


@pytest.mark.parametrize("whole", [True, False], ids=["nothing", "what is before it"])
def test_a_bad_sector_costs_its_block(disk: DiskTier, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    write(disk, ALL, ALL)
    monkeypatch.setattr(os, "preadv", bad_sector(os.preadv, errno.EIO, 7 * SIZE + 100, whole))
    assert missing(disk, ALL, ALL) == [7]
    assert disk.contents().keys() == set(ALL) - {7}
    assert disk.faults.counts == {"read": 1}


@pytest.mark.parametrize("whole", [True, False], ids=["nothing", "what is before it"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "I/O error"])
def test_a_block_that_cannot_be_written_is_not_there(
    disk: DiskTier, monkeypatch: pytest.MonkeyPatch, code: int, whole: bool
) -> None:
    write(disk, ALL, ALL)
    numbers = [100 + frame for frame in ALL]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", bad_sector(os.pwritev, code, 7 * SIZE + 100, whole))
        assert write(disk, ALL, numbers) == [7]
    assert missing(disk, ALL, numbers) == [7]
    assert missing(disk, [7], [7]) == [0]  # what it held before is gone
    assert disk.faults.counts == {"write": 1}
    assert write(disk, [7], [107]) == []  # the disk has space again
    assert missing(disk, ALL, numbers) == []


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """The kernel refuses this process writes past ``size``, in any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_writes_that_the_kernel_refuses(tmp_path: Path) -> None:
    layout = replace(LAYOUT, row_width=4096)  # blocks of megabytes: other files of this process are smaller
    tier = DiskTier.open(tmp_path, 12 * layout.block_bytes, layout)
    frames = list(range(12))
    keys = [key(frame) for frame in frames]
    with files_end_at(8 * layout.block_bytes + 1000):
        failed = tier.write(frames, keys, blocks(*frames, layout=layout))
    assert failed == [8, 9, 10, 11]
    assert tier.contents().keys() == set(range(8))
    assert tier.faults.counts == {"write": 4}
    tier.close()


@pytest.mark.parametrize("calls", [0, 1], ids=["when it is cleared", "when it is entered"])
def test_an_index_that_cannot_be_written(
    disk: DiskTier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: int
) -> None:
    write(disk, ALL, ALL)
    real, made = os.pwrite, []

    def pwrite(file: int, content: bytes, offset: int) -> int:
        made.append(offset)
        if len(made) > calls:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, content, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        assert write(disk, [3, 4], [103, 104]) == [0, 1]
    assert disk.contents().keys() == set(ALL) - {3, 4}
    assert disk.faults.counts == {"write": 2}
    disk.close()
    again = DiskTier.open(tmp_path / "kv", FRAMES * SIZE, LAYOUT)
    assert missing(again, ALL, ALL) in ([], [3, 4])  # never the other block
    again.close()


def test_an_index_that_cannot_be_read(
    disk: DiskTier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(disk, ALL, ALL)
    disk.close()
    real = os.pread

    def pread(file: int, size: int, offset: int) -> bytes:
        if offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, size, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        again = DiskTier.open(tmp_path / "kv", FRAMES * SIZE, LAYOUT)
    assert again.contents() == {}
    assert again.faults.counts == {"index": FRAMES}
    assert write(again, [3], [3]) == []
    assert missing(again, [3, 4], [3, 4]) == [1]
    again.close()


def test_a_file_that_is_cut_off_costs_what_is_lost(disk: DiskTier, tmp_path: Path) -> None:
    write(disk, ALL, ALL)
    os.truncate(data(tmp_path), 7 * SIZE + 10)
    assert missing(disk, ALL, ALL) == ALL[7:]
    assert disk.faults.counts == {"read": FRAMES - 7}
    assert write(disk, ALL[7:], ALL[7:]) == []  # it grows again
    assert missing(disk, ALL, ALL) == []


def test_a_directory_that_vanishes(disk: DiskTier, tmp_path: Path) -> None:
    """The kernel keeps open files; a process that starts finds none."""
    write(disk, ALL, ALL)
    shutil.rmtree(tmp_path / "kv")
    assert missing(disk, ALL, ALL) == []
    assert write(disk, [3], [103]) == []
    assert missing(disk, [3, 4], [103, 4]) == []
    other = DiskTier.open(tmp_path / "kv", FRAMES * SIZE, LAYOUT)
    assert other.contents() == {}
    other.close()


def test_a_thread_that_is_late_reads_and_writes_nothing(disk: DiskTier) -> None:
    """And above all not in a file that has the number of the closed one."""
    write(disk, ALL, ALL)
    disk.close()
    assert missing(disk, ALL, ALL) == ALL
    assert write(disk, [3], [3]) == [0]
    disk.forget([3])


def test_pages_that_never_reached_the_disk(disk: DiskTier, tmp_path: Path) -> None:
    """After a loss of power: the index has the new blocks, some pages of the data are the old ones."""
    write(disk, ALL, ALL)
    before = data(tmp_path).read_bytes()
    numbers = [100 + frame for frame in ALL]
    write(disk, ALL, numbers)
    disk.close()
    with data(tmp_path).open("r+b") as file:
        for start in range(0, FRAMES * SIZE, 4 * 4096):
            file.seek(start)
            file.write(before[start : start + 4096])
    again = DiskTier.open(tmp_path / "kv", FRAMES * SIZE, LAYOUT)
    lost = {page // SIZE for start in range(0, FRAMES * SIZE, 4 * 4096) for page in (start, start + 4095)}
    assert lost <= set(missing(again, ALL, numbers)) < set(ALL)
    again.close()


@pytest.mark.parametrize("part", ["key", "checksum", "seal"])
def test_a_flipped_bit_in_an_entry_costs_its_block(disk: DiskTier, tmp_path: Path, part: str) -> None:
    write(disk, ALL, ALL)
    disk.close()
    size = entry_bytes(LAYOUT.layers)
    place = {"key": 15, "checksum": 17, "seal": size - 1}[part]
    flip(index(tmp_path), HEADER_BYTES + 5 * size + place)
    again = DiskTier.open(tmp_path / "kv", FRAMES * SIZE, LAYOUT)
    assert again.contents().keys() == set(ALL) - {5}
    assert missing(again, ALL, ALL) == [5]
    again.close()


def test_a_flipped_bit_in_the_header_starts_the_files_anew(disk: DiskTier, tmp_path: Path) -> None:
    write(disk, ALL, ALL)
    disk.close()
    flip(index(tmp_path), 60)
    again = DiskTier.open(tmp_path / "kv", FRAMES * SIZE, LAYOUT)
    assert again.contents() == {}
    again.close()
