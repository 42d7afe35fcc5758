"""The tiers of the simulated device, by plans that are written by hand."""

from __future__ import annotations

import pytest

from albireo.contract.plan import Chunk, Plan
from albireo.contract.tiers import Contents, Frames, TierRead, TierShape
from tests.worker_svc.runner.simulated_device import (
    DISK,
    HOST,
    LAYERS,
    MS,
    SIZE,
    TIERS,
    Device,
    admission,
    fetch,
    filled,
    key,
    plan,
    spill,
)
from worker_svc.cost.tiers import NO_TIERS, DescribedTiers
from worker_svc.kv_tiers.limits import PORTION_FRAMES, RING_BYTES
from worker_svc.runner.simulated_tiers import DEADLINE_NS, SimulatedTiers

pytestmark = pytest.mark.usefixtures("by_layers")


def test_a_layer_starts_when_its_kv_is_there_and_the_layer_before_has_run() -> None:
    device = filled()
    report = device.step(plan(fetch(0, HOST, {1: 1, 2: 2})), forward=20)
    # 16 ms of reading, 4 for each layer; a layer computes for 5: only the first one waits.
    assert device.now == (10_000 + 4 + 20) * MS
    assert report.kv_wait_ns == 4 * MS
    assert report.read == (TierRead(HOST, 2, 0.016),)
    (copy,) = report.transfers
    assert (copy.tier, copy.write, copy.bytes) == ("host", False, 2 * SIZE)
    assert (copy.begin, copy.end) == (10_000 * MS, 10_016 * MS)


def test_where_reading_takes_longer_than_computing_only_the_last_layer_is_added() -> None:
    device = filled()
    report = device.step(plan(fetch(0, HOST, {1: 1, 2: 2})), forward=8)
    assert device.now == (10_000 + 16 + 2) * MS
    assert report.kv_wait_ns == 10 * MS


def test_reading_begins_when_the_plan_is_read_during_the_step_before() -> None:
    device = filled()
    step = device.tiers.begin(plan(fetch(0, HOST, {1: 1, 2: 2})), device.now)
    end, report = device.tiers.run(step, device.now + 20 * MS, 8 * MS)
    assert end == device.now + 28 * MS
    assert report is not None
    assert report.kv_wait_ns == 0


def test_fetches_of_one_tier_follow_one_another_and_tiers_read_at_the_same_time() -> None:
    device = filled()
    report = device.step(plan(fetch(0, HOST, {1: 1}), fetch(1, HOST, {2: 2, 3: 3}), fetch(2, DISK, {9: 9})))
    begins = {(copy.tier, (copy.begin - 10_000 * MS) // MS, (copy.end - 10_000 * MS) // MS)
              for copy in report.transfers}  # fmt: skip
    assert begins == {("host", 0, 8), ("host", 8, 24), ("disk", 0, 40)}
    assert device.now == 10_040 * MS


def test_the_first_step_with_a_chunk_of_the_slot_waits_and_no_other() -> None:
    device = filled()
    step = device.step(plan(fetch(0, DISK, {1: 1}), chunks=()), forward=10)
    assert (step.read, step.kv_wait_ns, device.now) == ((), 0, 10_010 * MS)
    step = device.step(plan(chunks=(Chunk(0, 96, 2),)), forward=4)
    assert step.read == (TierRead(DISK, 1, 0.040),)
    assert device.now == (10_040 + 1) * MS
    assert device.step(plan(chunks=(Chunk(0, 98, 1),)), forward=4).read == ()


def test_a_fetch_of_a_released_slot_is_not_waited_for() -> None:
    device = filled()
    device.step(plan(fetch(0, DISK, {1: 1}), chunks=()))
    report = device.step(Plan(1, 2, released=(0,), admissions=(admission(0),), chunks=(Chunk(0, 96, 3),)))
    assert (report.read, report.unfetched, report.kv_wait_ns) == ((), (), 0)


def test_a_frame_with_another_key_is_lost_and_its_request_unfetched() -> None:
    device = filled()
    report = device.step(plan(fetch(0, HOST, {1: 1, 2: 99}), fetch(1, HOST, {3: 3})))
    assert report.unfetched == (100,)
    assert report.lost == (Frames(HOST, (2,)),)
    assert [read.blocks for read in report.read] == [1]
    assert device.step(plan(fetch(0, HOST, {2: 2}))).unfetched == (100,)  # it is forgotten
    assert device.step(plan(fetch(0, HOST, {1: 1}))).unfetched == ()


def test_a_spill_takes_the_frame_of_what_was_there_and_can_be_fetched_at_once() -> None:
    device = filled()
    report = device.step(
        plan(fetch(0, HOST, {1: 50}), fetch(1, HOST, {2: 2}), spills=(spill(HOST, {1: 50}),))
    )
    assert report.unfetched == ()
    assert device.step(plan(fetch(0, HOST, {1: 1}))).unfetched == (100,)


def test_a_copy_is_reported_once_in_the_first_result_after_its_end() -> None:
    device = Device()
    report = device.step(plan(spills=(spill(DISK, {1: 1, 2: 2}),)), forward=30)
    assert report.transfers == ()
    (copy,) = device.step(plan(), forward=30).transfers
    assert (copy.tier, copy.write, copy.begin, copy.end, copy.bytes) == ("disk", True, 0, 40 * MS, 2 * SIZE)
    assert device.step(plan(), forward=30).transfers == ()


def test_what_finds_no_room_to_wait_is_lost() -> None:
    big = DescribedTiers((TierShape("disk", 64, 0.1, 0.1),), LAYERS, RING_BYTES)
    device = Device(big)
    report = device.step(plan(spills=(spill(0, {frame: frame for frame in range(34)}),)), forward=200)
    assert report.lost == (Frames(0, (32, 33)),)
    # Two of them are written by now: two more find room.
    report = device.step(plan(spills=(spill(0, {50: 50, 51: 51, 52: 52}),)))
    assert report.lost == (Frames(0, (52,)),)
    assert device.step(plan(fetch(0, 0, {31: 31, 51: 51}))).unfetched == ()
    assert device.step(plan(fetch(0, 0, {32: 32}))).unfetched == (100,)


def test_a_fetch_past_the_deadline_has_failed_and_is_waited_for_until_then() -> None:
    device = Device(DescribedTiers((TierShape("disk", 64, 0.5, 0.001),), LAYERS, SIZE))
    frames = {frame: frame for frame in range(42)}
    device.step(plan(spills=(spill(0, frames),)), forward=4)
    began = device.now
    report = device.step(plan(fetch(0, 0, dict(list(frames.items())[:39]))), forward=4)
    assert report.unfetched == ()
    assert device.now - began > 19_000 * MS
    began = device.now
    report = device.step(plan(fetch(0, 0, frames)), forward=4)
    assert report.unfetched == (100,)
    assert report.read == ()
    assert device.now == began + DEADLINE_NS + 1 * MS


def test_contents_survive_the_epoch_and_are_reported_in_portions_by_its_first_results() -> None:
    device = Device(DescribedTiers((TIERS.shapes[HOST], TierShape("disk", 9000, 0, 1e-6)), LAYERS, 1))
    device.tiers.reset()
    empty = device.step(plan())
    assert (empty.contents, empty.contents_end) == ((), True)
    numbers = {frame: frame + 1 for frame in range(PORTION_FRAMES + 5)}
    for first in range(0, len(numbers), 200):  # what waits to be written is bounded
        some = {frame: numbers[frame] for frame in range(first, min(first + 200, len(numbers)))}
        assert device.step(plan(spills=(spill(DISK, some),)), forward=1).lost == ()
    device.step(plan(fetch(0, DISK, {0: 1}), spills=(spill(HOST, {3: 3}),), chunks=()))
    device.tiers.reset()
    reported: dict[tuple[int, int], bytes] = {}
    reports = [device.step(plan()) for _ in range(4)]
    assert [report.contents_end for report in reports] == [False, False, True, False]
    for report in reports:
        for contents in report.contents:
            assert isinstance(contents, Contents)
            assert len(contents.frames) <= PORTION_FRAMES
            reported |= {
                (contents.tier, frame): k for frame, k in zip(contents.frames, contents.keys, strict=True)
            }
    assert reported == {(HOST, 3): key(3), **{(DISK, frame): key(n) for frame, n in numbers.items()}}
    assert device.step(plan(chunks=(Chunk(0, 96, 3),))).read == ()  # of the epoch before


def test_without_tiers_nothing_is_reported_and_a_forward_takes_its_time() -> None:
    tiers = SimulatedTiers(NO_TIERS)
    tiers.reset()
    assert tiers.run(tiers.begin(plan(), 5), 7, 3) == (10, None)
