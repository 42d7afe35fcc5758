"""The disk of a KV tier, before a worker uses it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from albireo.models import TINY
from albireo.tools.doctor import kv_disk
from albireo.tools.doctor.kv_disk import check_disk, check_use, file_system
from albireo.tools.doctor.torch_checks import chunk_rate
from worker_svc.cost.shape import ModelShape
from worker_svc.kv_tiers.disk_speed import DiskSpeed
from worker_svc.model.config import ModelConfig
from worker_svc.settings import WorkerSettings

CONFIG = ModelConfig.from_dir(TINY)
MOUNTS = "none / ext4 rw 0 0\nnone /a tmpfs rw 0 0\nhost:/x /a/b\\040c nfs4 rw 0 0\nnone /abc xfs rw 0 0\n"


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mounts"
    monkeypatch.setattr(kv_disk, "MOUNTS", path)
    path.write_text(MOUNTS)
    return path


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/", "ext4"),
        ("/ab", "ext4"),
        ("/a", "tmpfs"),
        ("/a/b", "tmpfs"),
        ("/a/b c/d", "nfs4"),
        ("/abc", "xfs"),
    ],
)
def test_a_directory_is_on_the_file_system_that_is_mounted_next_above(
    mounts: Path, directory: str, kind: str
) -> None:
    assert file_system(Path(directory)) == kind


def test_of_two_mounts_on_one_directory_the_later_counts(mounts: Path) -> None:
    mounts.write_text(MOUNTS + "none /abc btrfs rw 0 0\n")
    assert file_system(Path("/abc")) == "btrfs"


def test_a_disk_is_measured_without_a_trace(tmp_path: Path, mounts: Path) -> None:
    finding, speed = check_disk(tmp_path / "kv", 1 << 20)
    assert finding.level == "ok"
    assert str(tmp_path / "kv") in finding.found
    assert "ext4" in finding.found
    assert speed is not None
    assert list(tmp_path.iterdir()) == [mounts]


@pytest.mark.parametrize(("kind", "advice"), [("tmpfs", "main memory"), ("nfs4", "disk of this machine")])
def test_what_is_no_disk_of_this_machine_is_a_warning(
    tmp_path: Path, mounts: Path, kind: str, advice: str
) -> None:
    mounts.write_text(f"none / {kind} rw 0 0\n")
    finding, speed = check_disk(tmp_path, 1 << 20)
    assert finding.level == "warning"
    assert advice in finding.advice
    assert speed is not None


def test_a_directory_that_cannot_be_written_fails(tmp_path: Path) -> None:
    for directory in (Path("/sys/albireo"), tmp_path / "a" / "b"):
        finding, speed = check_disk(directory, 1)
        assert (finding.level, speed) == ("failure", None)
        assert str(directory) in finding.found


def test_more_than_is_free_fails_and_what_tiers_have_counts(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    finding, _ = check_disk(tmp_path, 2 * free)
    assert finding.level == "failure"
    assert "lower --kv-disk-size" in finding.advice
    with (tmp_path / "rank0-0.data").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 64 << 20)
    assert "64.0 MiB taken by KV" in check_disk(tmp_path, 1)[0].found


def test_what_a_disk_brings_is_compared_with_computing() -> None:
    shape = ModelShape(CONFIG, 1, 4)
    taken, computed = 1000 * shape.kv_token_bytes, 2000 * shape.layer_parameters
    fast = check_use(DiskSpeed(taken / 0.010, 1.0), CONFIG, "float32", computed / 0.5, ranks=1)
    assert fast.level == "ok"
    assert "read in 10 ms; their matrix products take 500 ms" in fast.found
    slow = check_use(DiskSpeed(taken / 0.6, 1.0), CONFIG, "float32", computed / 0.5, ranks=1)
    assert slow.level == "warning"


def test_ranks_of_a_machine_share_its_disk() -> None:
    shape = ModelShape(CONFIG, 2, 4)
    speed = DiskSpeed(1000 * shape.kv_token_bytes / 0.010, 1.0)
    assert "read in 20 ms" in check_use(speed, CONFIG, "float32", None, ranks=2).found


def test_a_chunk_is_computed_to_see_how_fast() -> None:
    options: dict[str, Any] = {"redis_url": "redis://127.0.0.1", "device": "cpu", "dtype": "float32"}
    settings = WorkerSettings(model=TINY, **options)
    alone = chunk_rate(settings, CONFIG, 1)
    assert alone is not None
    assert 1e7 < alone < 1e15
    assert chunk_rate(settings.model_copy(update={"device": "sim"}), CONFIG, 1) is None
