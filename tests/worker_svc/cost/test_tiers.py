"""The tiers that the file of a device, or of step times, describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.contract.tiers import TierShape
from tests.worker_svc.cost.shapes import QWEN_32B
from worker_svc.cost.device import PRESETS, Device
from worker_svc.cost.fixed import FixedCost, StepTimes
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.shape import ModelShape
from worker_svc.cost.tiers import NO_TIERS, DescribedTiers, described_tiers

DISK = '[[tier]]\nname = "disk"\ngib = 1\nread_gb_per_second = 2\nwrite_gb_per_second = 1\n'
SHAPE = ModelShape(QWEN_32B, 4)
BLOCK_BYTES = (
    2 * 64 * 16 * 2 * 128 * 2
)  # keys and values, layers, tokens, heads of a rank, head_dim, bfloat16


def of_device(tmp_path: Path, tables: str = "", **sizes: int) -> DescribedTiers:
    path = tmp_path / "device.toml"
    path.write_text((PRESETS / "h100.toml").read_text(encoding="utf-8") + tables)
    return described_tiers(PhysicalCost(Device.load(str(path)), QWEN_32B, 4), SHAPE, sizes)


def test_a_tier_holds_blocks_of_one_rank_and_moves_them_at_its_rates(tmp_path: Path) -> None:
    tiers = of_device(tmp_path, DISK)
    assert (tiers.layers, tiers.block_bytes) == (64, BLOCK_BYTES)
    host, disk = tiers.shapes
    assert (host.name, host.frames) == ("host", 64 * 2**30 // BLOCK_BYTES)
    assert host.read_block_seconds == host.write_block_seconds == pytest.approx(BLOCK_BYTES / 50e9)
    assert (disk.name, disk.frames) == ("disk", 2**30 // BLOCK_BYTES)
    assert disk.read_block_seconds == pytest.approx(BLOCK_BYTES / 2e9)
    assert disk.write_block_seconds == pytest.approx(BLOCK_BYTES / 1e9)


def test_sizes_that_are_given_replace_those_of_the_file(tmp_path: Path) -> None:
    (host,) = of_device(tmp_path, DISK, host=3 * BLOCK_BYTES + 1, disk=0).shapes
    assert (host.name, host.frames) == ("host", 3)


def test_step_times_may_name_tiers_too_and_without_any_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "times.toml"
    text = 'name = "n"\nsource = "s"\n[t3]\nfixed_ms = 1\n[t4]\nfixed_ms = 1\n'
    path.write_text(text + DISK)
    named = described_tiers(FixedCost(StepTimes.load(str(path)), 4), SHAPE)
    assert [tier.name for tier in named.shapes] == ["disk"]
    assert described_tiers(FixedCost(StepTimes.load("paper-32b"), 4), SHAPE).shapes == NO_TIERS.shapes


@pytest.mark.parametrize(
    ("tables", "sizes", "problem"),
    [
        ("", {"disk": 1 << 30}, "h100 has no tier disk"),
        ("", {"host": 5}, "tier host: 5 bytes hold no block"),
        (DISK + DISK, {}, "'disk', 'disk'"),
        (DISK.replace("gib = 1", "gib = 0"), {}, "gib"),
        (DISK.replace('"disk"', '"a disk"'), {}, "tier.1.name"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    tmp_path: Path, tables: str, sizes: dict[str, int], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        of_device(tmp_path, tables, **sizes)
    assert "\n" not in str(caught.value)


def test_a_request_has_all_blocks_or_some_and_the_frames_of_the_largest_tier() -> None:
    tiers = DescribedTiers((TierShape("host", 30, 0, 0), TierShape("disk", 100, 0, 0)))
    assert tiers.most_tokens(40) == (10 + 100) * 16
    assert tiers.most_tokens(400) == 400 * 16
    assert NO_TIERS.most_tokens(40) == 40 * 16
