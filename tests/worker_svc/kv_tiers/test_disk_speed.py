"""Measuring a disk: bounded, of the disk and not of memory, and without a trace."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.worker_svc.kv_tiers.blocks import FRAMES, LAYOUT
from worker_svc.kv_tiers import disk_speed
from worker_svc.kv_tiers.disk import DiskTier
from worker_svc.kv_tiers.disk_speed import FIRST_BYTES, MEASURED_BYTES, directory_speed, file_speed
from worker_svc.kv_tiers.errors import TierError


def test_a_directory_is_measured_without_a_trace(tmp_path: Path) -> None:
    speed = directory_speed(tmp_path)
    assert 1e6 < speed.read < 1e12
    assert 1e6 < speed.write < 1e12
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_has_been_dropped_from_the_page_cache_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    write, advise, read = os.pwritev, os.posix_fadvise, os.preadv

    def pwritev(file: int, rows: Sequence[bytes], offset: int, flags: int) -> int:
        events.append("write" if flags & os.RWF_DSYNC else "write late")
        return write(file, rows, offset, flags)

    def posix_fadvise(file: int, offset: int, size: int, advice: int) -> None:
        assert (advice, size) == (os.POSIX_FADV_DONTNEED, os.fstat(file).st_size)
        events.append("drop")
        advise(file, offset, size, advice)

    def preadv(file: int, rows: Sequence[bytearray], offset: int) -> int:
        events.append("read")
        return read(file, rows, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "posix_fadvise", posix_fadvise)
    monkeypatch.setattr(os, "preadv", preadv)
    directory_speed(tmp_path)
    assert list(dict.fromkeys(events)) == ["write", "drop", "read"]
    assert events == sorted(events, key=["write", "drop", "read"].index)


def test_a_slow_disk_is_measured_with_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwritev, os.preadv

    def slow_write(file: int, rows: Sequence[bytes], offset: int, flags: int) -> int:
        time.sleep(0.15)
        return write(file, rows, offset, flags)

    def slow_read(file: int, rows: Sequence[bytearray], offset: int) -> int:
        time.sleep(0.15)
        return read(file, rows, offset)

    monkeypatch.setattr(os, "pwritev", slow_write)
    monkeypatch.setattr(os, "preadv", slow_read)
    speed = directory_speed(tmp_path)
    assert speed.write <= FIRST_BYTES / 0.15
    assert speed.read <= FIRST_BYTES / 0.15


@pytest.mark.parametrize("block", [100, FIRST_BYTES, 10 * MEASURED_BYTES])
def test_no_more_is_written_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(disk_speed, "SECONDS", 60.0)
    with (tmp_path / "file").open("w+b") as file:
        file_speed(file.fileno(), 4096, block)
        assert os.fstat(file.fileno()).st_size <= 4096 + MEASURED_BYTES


def test_a_disk_that_fails_meanwhile_is_named(disk: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(TierError, match=r"--kv-disk .*: Input/output error while it was measured"):
        disk.measure()


@pytest.mark.parametrize("call", ["preadv", "pwritev"])
def test_a_disk_that_moves_nothing_is_named(
    disk: DiskTier, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, lambda *arguments: 0)
    with pytest.raises(TierError, match="while it was measured"):
        disk.measure()


def test_a_tier_is_as_fast_as_its_disk(disk: DiskTier) -> None:
    """Seconds of one block, which are those of its bytes."""
    speed = disk.measure()
    assert disk.frames == FRAMES
    assert 1e6 < LAYOUT.block_bytes / speed.read_block_seconds < 1e12
