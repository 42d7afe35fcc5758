"""Which files a disk tier takes, what it keeps of them, and why it refuses to open."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.worker_svc.kv_tiers.blocks import FRAMES, LAYOUT, key, missing, write
from worker_svc.kv_tiers import disk_files
from worker_svc.kv_tiers.disk import DiskTier
from worker_svc.kv_tiers.errors import TierError
from worker_svc.kv_tiers.layout import KvLayout

SIZE = FRAMES * LAYOUT.block_bytes


def opened(directory: Path, size: int = SIZE, layout: KvLayout = LAYOUT) -> DiskTier:
    return DiskTier.open(directory, size, layout)


def filled(directory: Path, numbers: range = range(FRAMES), layout: KvLayout = LAYOUT) -> DiskTier:
    tier = opened(directory, layout=layout)
    assert write(tier, list(range(len(numbers))), list(numbers)) == []
    return tier


def data_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.data"))


def test_blocks_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    filled(tmp_path / "kv").close()
    again = opened(tmp_path / "kv")
    assert again.contents() == {frame: key(frame) for frame in range(FRAMES)}
    assert missing(again, list(range(FRAMES)), list(range(FRAMES))) == []
    assert again.faults.counts == {}
    again.close()


def test_a_forgotten_frame_stays_so(tmp_path: Path) -> None:
    first = filled(tmp_path)
    first.forget([3, 4, 11])
    first.close()
    again = opened(tmp_path)
    assert again.contents().keys() == set(range(FRAMES)) - {3, 4, 11}
    again.close()


def test_all_space_is_allocated_at_once(tmp_path: Path) -> None:
    opened(tmp_path).close()
    for path in tmp_path.glob("rank0-0.*"):
        status = path.stat()
        assert 512 * status.st_blocks >= status.st_size


def test_only_this_user_may_read_the_files(tmp_path: Path) -> None:
    """KV is what users wrote."""
    opened(tmp_path / "kv").close()
    assert [(tmp_path / "kv").stat().st_mode & 0o077] == [0]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "kv").iterdir()} == {0o600}


@pytest.mark.parametrize("frames", [FRAMES // 2, 3 * FRAMES])
def test_another_size_keeps_the_frames_that_remain(tmp_path: Path, frames: int) -> None:
    filled(tmp_path).close()
    other = opened(tmp_path, frames * LAYOUT.block_bytes)
    assert other.frames == frames
    kept = list(range(min(frames, FRAMES)))
    assert other.contents().keys() == set(kept)
    assert missing(other, kept, kept) == []
    assert write(other, [frames - 1], [99]) == []
    other.close()
    again = opened(tmp_path)
    assert again.contents().keys() <= set(range(FRAMES))
    again.close()


@pytest.mark.parametrize(
    "other",
    [
        replace(LAYOUT, checkpoint="d" * 32),
        replace(LAYOUT, dtype=torch.float32),
        replace(LAYOUT, layers=5),
        replace(LAYOUT, tp=2),
    ],
    ids=["checkpoint", "dtype", "layers", "tp"],
)
def test_files_of_another_layout_are_started_anew(tmp_path: Path, other: KvLayout) -> None:
    filled(tmp_path).close()
    tier = opened(tmp_path, layout=other)
    assert tier.contents() == {}
    tier.close()
    assert data_files(tmp_path) == ["rank0-0.data"]
    back = opened(tmp_path)
    assert back.contents() == {}  # the other one has had the file
    back.close()


def test_a_second_process_takes_files_of_its_own(tmp_path: Path) -> None:
    """The lock belongs to the open file, so two tiers of one process are like those of two."""
    first, second = filled(tmp_path), opened(tmp_path)
    assert second.contents() == {}
    write(second, [0, 1], [50, 51])
    assert missing(first, [0, 1], [0, 1]) == []
    assert missing(second, [0, 1], [50, 51]) == []
    assert data_files(tmp_path) == ["rank0-0.data", "rank0-1.data"]
    first.close()
    second.close()


def test_files_of_the_same_layout_come_first(tmp_path: Path) -> None:
    other = replace(LAYOUT, checkpoint="d" * 32)
    first, second = filled(tmp_path), filled(tmp_path, range(50, 60), other)
    first.close()
    second.close()
    again = opened(tmp_path, layout=other)
    assert again.contents() == {frame: key(50 + frame) for frame in range(10)}
    again.close()
    first = opened(tmp_path)
    assert len(first.contents()) == FRAMES
    first.close()


def test_each_rank_has_its_own(tmp_path: Path) -> None:
    ranks = [filled(tmp_path, range(10), replace(LAYOUT, tp=2, rank=rank)) for rank in range(2)]
    for tier in ranks:
        tier.close()
    assert data_files(tmp_path) == ["rank0-0.data", "rank1-0.data"]
    again = opened(tmp_path, layout=replace(LAYOUT, tp=2, rank=1))
    assert len(again.contents()) == 10
    again.close()


def test_a_missing_data_file_holds_nothing(tmp_path: Path) -> None:
    filled(tmp_path).close()
    (tmp_path / "rank0-0.data").unlink()
    again = opened(tmp_path)
    assert again.contents() == {}
    again.close()


def test_a_data_file_that_was_cut_off_holds_what_is_left(tmp_path: Path) -> None:
    filled(tmp_path).close()
    os.truncate(tmp_path / "rank0-0.data", 7 * LAYOUT.block_bytes + 1)
    again = opened(tmp_path)
    assert again.contents().keys() == set(range(7))
    assert missing(again, list(range(7)), list(range(7))) == []
    again.close()


def test_an_index_that_was_cut_off_knows_what_is_left(tmp_path: Path) -> None:
    filled(tmp_path).close()
    index = tmp_path / "rank0-0.index"
    entry = (index.stat().st_size - disk_files.HEADER_BYTES) // FRAMES
    os.truncate(index, disk_files.HEADER_BYTES + 7 * entry + entry // 2)
    again = opened(tmp_path)
    assert again.contents().keys() == set(range(7))
    again.close()


def test_a_directory_that_is_gone_is_made_again(tmp_path: Path) -> None:
    filled(tmp_path / "kv").close()
    shutil.rmtree(tmp_path / "kv")
    again = opened(tmp_path / "kv")
    assert again.contents() == {}
    again.close()


def test_a_directory_without_a_parent_is_refused(tmp_path: Path) -> None:
    """A disk that is not mounted must not become gigabytes on the one below."""
    with pytest.raises(TierError, match=rf"--kv-disk {tmp_path}/a/b: .*{tmp_path}/a must exist"):
        opened(tmp_path / "a" / "b")


def test_a_directory_that_is_not_writable_is_refused() -> None:
    with pytest.raises(TierError, match=r"--kv-disk /sys/albireo: .* user \d+ cannot write there"):
        opened(Path("/sys/albireo"))


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TierError, match="file: not a directory"):
        opened(tmp_path / "file")


def test_a_size_of_no_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TierError, match=f"--kv-disk-size: 100 bytes .* takes {LAYOUT.block_bytes} bytes"):
        opened(tmp_path, 100)


def test_more_than_is_free_is_refused_and_nothing_taken(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    filled(tmp_path).close()
    before = sum(512 * path.stat().st_blocks for path in tmp_path.iterdir())
    with pytest.raises(TierError, match=r"--kv-disk-size: \d+ MiB in .* need \d+ MiB more, \d+ MiB are free"):
        opened(tmp_path, free + (1 << 40))
    assert sum(512 * path.stat().st_blocks for path in tmp_path.iterdir()) <= before
    again = opened(tmp_path)
    assert len(again.contents()) == FRAMES
    again.close()


def test_a_disk_that_gives_less_than_it_said_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, offset: int, size: int) -> None:
        os.ftruncate(file, size // 2)  # what it could give
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TierError, match=r"--kv-disk-size: .* \(No space left on device\)"):
        opened(tmp_path)
    assert (tmp_path / "rank0-0.data").stat().st_size == 0


def test_another_process_that_stands_still_while_it_chooses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_files, "LOCK_SECONDS", 0.05)
    with disk_files.choosing(tmp_path), pytest.raises(TierError, match=r"another process has held .*/lock"):
        opened(tmp_path)


def test_a_failed_opening_releases_the_files(tmp_path: Path) -> None:
    filled(tmp_path).close()
    with pytest.raises(TierError):
        opened(tmp_path, 1 << 60)
    again = opened(tmp_path)
    assert len(again.contents()) == FRAMES
    assert data_files(tmp_path) == ["rank0-0.data"]
    again.close()
