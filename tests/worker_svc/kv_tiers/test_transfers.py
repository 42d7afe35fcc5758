"""Plans with spills and fetches, and epochs."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.contract.plan import Grant, Plan
from tests.worker_svc.kv_tiers.blocks import flip
from tests.worker_svc.kv_tiers.scene import (
    BLOCKS,
    LAYOUT,
    chunk_plan,
    eventually,
    fetch,
    key,
    scene,
    spill,
)
from worker_svc.kv_tiers.copies import CpuCopies
from worker_svc.kv_tiers.disk import DiskTier
from worker_svc.kv_tiers.transfers import KvTransfers


def test_what_is_spilled_comes_back_in_another_block() -> None:
    with scene() as s:
        for block in range(20):
            s.put(block, 50 + block)
        first = s.run(
            Plan(1, 1, spills=(spill({b: b + 7 for b in range(20)}, names=[50 + b for b in range(20)]),))
        )
        eventually(lambda: all(s.stored(b + 7, 50 + b) for b in range(20)))
        found = s.run(
            chunk_plan(2, fetch({40 + b: b + 7 for b in range(20)}, names=[50 + b for b in range(20)]))
        )
        assert found.missing == [False]
        assert all(s.holds(40 + b, 50 + b) for b in range(20))
        copies = [*first.recorded.transfers, *found.recorded.transfers]

        def copied() -> dict[bool, int]:
            if (recorded := s.transfers.record.take()) is not None:
                copies.extend(recorded.transfers)
            return {write: sum(c.bytes for c in copies if c.write is write) for write in (False, True)}

        eventually(lambda: copied() == dict.fromkeys((False, True), 20 * LAYOUT.block_bytes))
        assert {c.tier for c in copies} == {"tier 0"}
        assert all(c.begin <= c.end for c in copies)


def test_a_step_without_transfers_has_none() -> None:
    with scene() as s:
        assert s.begin(Plan(1, 1, grants=(Grant(0, (1, 2)),))) is None


def test_an_epoch_begins_with_the_contents_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_svc.kv_tiers.transfers.PORTION_FRAMES", 2)
    with scene(2) as s:
        assert s.begin(Plan(1, 1)) is None
        for block in (1, 2, 3):
            s.put(block, block)
        s.run(Plan(1, 2, spills=(spill({1: 6, 2: 5}, names=[1, 2]), spill({3: 0}, names=[3], tier=1))))
        eventually(lambda: len(s.tiers[0].contents()) == 2 and s.stored(0, 3, tier=1))
        s.tiers[0].writes.clear()
        s.run(Plan(1, 3, spills=(spill({3: 9}, names=[3]),)))  # not written when the epoch begins
        s.transfers.reset()
        steps = [s.begin(Plan(2, step)) for step in range(1, 5)]
        found = [(step.contents, step.contents_end) for step in steps if step is not None]
        assert found == [
            (((0, (5, 6), (key(2), key(1))),), False),
            (((0, (9,), (key(3),)),), False),
            (((1, (0,), (key(3),)),), True),
        ]
        assert steps[3] is None


def test_an_epoch_over_empty_tiers_says_so() -> None:
    with scene() as s:
        s.transfers.reset()
        step = s.begin(Plan(1, 1))
        assert step is not None
        assert (step.contents, step.contents_end) == ((), True)


def test_a_new_epoch_ends_what_the_old_one_began() -> None:
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        eventually(lambda: s.stored(0, 5))
        s.tiers[0].reads.clear()
        read = s.begin(chunk_plan(2, fetch({9: 0}, names=[5])))
        unwritten = s.begin(Plan(1, 3, spills=(spill({1: 1}, names=[6]),)))
        s.transfers.reset()
        s.tiers[0].reads.set()
        assert read is not None
        assert unwritten is not None
        assert s.compute(read) == [True]
        s.compute(unwritten)  # steps of the old epoch may still run
        assert s.run(chunk_plan(1, fetch({10: 0}, names=[5]), slot=1)).missing == [False]
        assert not s.holds(9, 5)
        assert s.tiers[0].contents() == {0: key(5)}


@pytest.mark.parametrize(
    "plan",
    [
        Plan(1, 1, spills=(spill({1: 0}, names=[1], tier=1),)),
        Plan(1, 1, spills=(spill({1: 64}, names=[1]),)),
        Plan(1, 1, spills=(spill({80: 0}, names=[1]),)),
        chunk_plan(1, fetch({1: 64}, names=[1])),
        chunk_plan(1, fetch({80: 1}, names=[1])),
    ],
)
def test_what_is_not_there_is_refused(plan: Plan) -> None:
    with scene() as s, pytest.raises(ValueError, match=r"there is no|no such frame"):
        s.begin(plan)


def test_a_flipped_bit_counts_once(tmp_path: Path) -> None:
    """The other blocks of its fetch were not at fault."""
    with scene() as s:
        disk = DiskTier.open(tmp_path / "kv", 64 * LAYOUT.block_bytes, LAYOUT)
        s.transfers.close()
        s.transfers = KvTransfers([disk], CpuCopies(s.cache), LAYOUT, BLOCKS)
        s.run(Plan(1, 1, spills=(spill({1: 1, 2: 2, 3: 3}, names=[1, 2, 3]),)))
        eventually(lambda: len(disk.contents()) == 3)
        flip(tmp_path / "kv" / "rank0-0.data", 2 * LAYOUT.block_bytes, bit=3)
        plan = chunk_plan(2, fetch({11: 1, 12: 2, 13: 3}, names=[1, 2, 3]))
        eventually(lambda: s.run(plan).missing == [True])  # one that is early is served from the buffer
        assert s.transfers.failures == {("disk", "checksum"): 1}
