"""Which KV tiers a rank opens, and what its group has in common in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from albireo.runtime.kv_memory import KvMemory
from tests.worker_svc.kv_tiers.memory_tier import MemoryTier
from tests.worker_svc.ranks import run_group
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kv_tiers.errors import TierError
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.runner.agreement import agree_on_contents, missing_by_rank
from worker_svc.runner.tier_opening import TierOptions, open_tiers

LAYOUT = KvLayout(3, 2, 4, torch.bfloat16, "c" * 32, tp=1, rank=0)
CPU = torch.device("cpu")


def opened(options: TierOptions) -> list[tuple[str, int]]:
    tiers = open_tiers(options, LAYOUT, TPGroup(), CPU, local_ranks=1)
    for tier in tiers:
        tier.close()
    return [(tier.name, tier.frames) for tier in tiers]


def test_on_a_cpu_there_is_no_tier_unless_one_is_asked_for(tmp_path: Path) -> None:
    assert opened(TierOptions(None, None, 0)) == []
    assert opened(TierOptions(KvMemory(), None, 0)) == []
    size = 10 * LAYOUT.block_bytes + 1
    assert opened(TierOptions(KvMemory(size), None, 0)) == [("host", 10)]
    assert opened(TierOptions(KvMemory(size), tmp_path, size)) == [("host", 10), ("disk", 10)]
    [(name, frames)] = opened(TierOptions(KvMemory(share=0.001), None, 0))
    assert name == "host"
    assert frames > 10


@pytest.mark.parametrize("options", [TierOptions(KvMemory(1), None, 0), TierOptions(None, Path("kv"), 1)])
def test_a_size_that_holds_no_block_is_refused(options: TierOptions) -> None:
    with pytest.raises(TierError, match="hold no block"):
        open_tiers(options, LAYOUT, TPGroup(), CPU, local_ranks=1)


class _Options:
    """What ranks say whose options of the disk differ."""

    def __init__(self, *options: TierOptions) -> None:
        self.options = options

    def __call__(self, group: TPGroup) -> str:
        layout = replace(LAYOUT, tp=group.size, rank=group.rank)
        try:
            open_tiers(self.options[group.rank], layout, group, CPU, local_ranks=2)
        except TierError as error:
            return str(error)
        return ""


def test_ranks_with_other_tiers_do_not_start(tmp_path: Path) -> None:
    """The copies of plans name tiers and frames, which all ranks must have."""
    none, small, large = (
        TierOptions(None, path, frames * LAYOUT.block_bytes)
        for path, frames in ((None, 0), (tmp_path / "kv", 4), (tmp_path / "kv", 8))
    )
    jobs = {"none": _Options(small, none), "other": _Options(small, large), "same": _Options(small, small)}
    found = run_group(2, jobs, tmp_path)
    assert "rank 0 has 1 KV tiers with 4 frames, rank 1 has 0 with 0" in found["none"]
    assert "rank 1 has 1 with 8: all ranks of a group need the same" in found["other"]
    assert found["same"] == ""


class _Common:
    """What is left of some contents, that differ by rank, on rank 0; and who lacks which slots."""

    def __init__(self, *contents: Sequence[tuple[int, int]]) -> None:
        self.contents = contents

    def __call__(self, group: TPGroup) -> tuple[list[int], list[list[int]]]:
        tier = MemoryTier(LAYOUT)
        for frame, name in self.contents[group.rank]:
            tier.write([frame], [name.to_bytes(16, "big")], torch.zeros(1, *LAYOUT.block_shape))
        agree_on_contents(tier, group, CPU)
        missing = missing_by_rank([group.rank == 1, False], group, CPU)
        return sorted(tier.contents()), missing.tolist()


def test_ranks_begin_with_what_all_of_them_hold(tmp_path: Path) -> None:
    jobs = {
        "some": _Common([(0, 1), (1, 2), (2, 2**127 + 5), (3, 4)], [(3, 9), (2, 2**127 + 5), (0, 1)]),
        "none": _Common([(0, 1)], []),
    }
    found = run_group(2, jobs, tmp_path)
    lacks = [[0, 0], [1, 0]]
    assert found == {"some": ([0, 2], lacks), "none": ([], lacks)}
