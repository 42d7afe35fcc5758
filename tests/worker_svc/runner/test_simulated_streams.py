"""What layers of streamed slots read of the tiers of the simulated device."""

from __future__ import annotations

from albireo.contract.plan import Plan
from albireo.contract.tiers import Frames, Offload, Span, TierRead
from tests.worker_svc.runner.simulated_device import (
    DISK,
    HOST,
    LAYERS,
    MS,
    SIZE,
    Device,
    admission,
    fetch,
    filled,
    key,
    plan,
)


def offload(slot: int, tier: int, frames: dict[int, int]) -> Offload:
    return Offload(slot, tier, tuple(frames), tuple(map(key, frames.values())))


def streamed(device: Device, *, slot: int = 0, tier: int = HOST, frames: int = 4) -> None:
    """The first frames of a tier are streamed for a slot that is admitted."""
    given = {frame: frame for frame in range(frames)}
    device.step(Plan(1, 1, admissions=(admission(slot),), offloads=(offload(slot, tier, given),)))


def spans(*layers: range, slot: int = 0) -> Plan:
    return Plan(1, 2, spans=tuple(Span(slot, 96, 1, one.start, one.stop) for one in layers))


def test_a_layer_of_a_span_takes_as_long_as_reading_for_it_or_computing() -> None:
    device = filled()
    streamed(device)  # 32 ms of reading for all layers
    report = device.step(spans(range(LAYERS)), forward=20)
    assert device.now == (10_000 + 32) * MS
    assert (report.kv_wait_ns, report.stream_wait_ns) == (12 * MS, 12 * MS)
    report = device.step(spans(range(LAYERS)), forward=40)
    assert device.now == (10_032 + 40) * MS
    assert (report.kv_wait_ns, report.stream_wait_ns) == (0, 0)
    (read,) = report.transfers
    assert (read.tier, read.write, read.streamed, read.bytes) == ("host", False, True, 4 * SIZE)
    assert (read.begin, read.end) == (10_032 * MS, 10_064 * MS)


def test_layers_that_no_span_runs_read_nothing() -> None:
    device = filled()
    streamed(device)
    report = device.step(spans(range(1, 3)), forward=40)
    assert device.now == (10_000 + 40) * MS  # 10 ms of computing, 8 of reading for each of the two
    assert sum(read.bytes for read in report.transfers) == 2 * SIZE
    # Without other rows only these layers take any time.
    device.step(spans(range(3, 4)), forward=4, whole=False)
    assert device.now == (10_040 + 8) * MS


def test_spans_of_several_slots_read_one_after_another() -> None:
    device = filled()
    for slot, frames in ((0, 4), (1, 2)):
        streamed(device, slot=slot, frames=frames)
    both = Plan(1, 2, spans=(Span(0, 96, 1, 0, LAYERS), Span(1, 96, 1, 2, LAYERS)))
    report = device.step(both)
    assert device.now == (10_000 + 32 + 8) * MS
    assert sum(read.bytes for read in report.transfers) == (4 * LAYERS + 2 * 2) * SIZE // LAYERS


def test_reading_begins_with_the_plan_during_the_step_before() -> None:
    device = filled()
    streamed(device)
    step = device.tiers.begin(spans(range(LAYERS)), device.now)
    end, report = device.tiers.run(step, device.now + 20 * MS, 8 * MS)
    assert end == device.now + 32 * MS
    assert report is not None
    assert report.stream_wait_ns == 4 * MS  # 20 of 32 were there


def test_reading_for_spans_and_fetches_share_the_rate_of_a_tier() -> None:
    device = filled()
    streamed(device)
    device.tiers.begin(plan(fetch(1, HOST, {6: 6}), chunks=()), device.now)  # 8 ms
    device.step(spans(range(LAYERS)))
    assert device.now == (10_000 + 8 + 32) * MS
    step = device.tiers.begin(spans(range(LAYERS)), device.now)
    report = device.step(plan(fetch(2, HOST, {5: 5})))  # behind these 32 ms
    assert report.read == (TierRead(HOST, 1, 0.008),)
    assert device.now == (10_040 + 32 + 8) * MS
    end, _ = device.tiers.run(step, device.now, 0)
    assert end == device.now  # all is there


def test_one_reader_reads_for_one_step_after_another() -> None:
    device = filled()
    streamed(device, slot=0)
    streamed(device, slot=1, tier=DISK, frames=2)  # 80 ms
    first = device.tiers.begin(spans(range(LAYERS), slot=1), device.now)
    second = device.tiers.begin(spans(range(LAYERS), slot=0), device.now)
    device.now, _ = device.tiers.run(first, device.now, 0)
    assert device.now == (10_000 + 80) * MS
    device.now, _ = device.tiers.run(second, device.now, 0)
    assert device.now == (10_080 + 32) * MS


def test_a_slot_whose_frames_hold_something_else_is_not_computed() -> None:
    device = filled()
    wrong = offload(0, HOST, {0: 0, 1: 5})
    report = device.step(Plan(1, 1, admissions=(admission(0),), offloads=(wrong,)))
    assert report.lost == (Frames(HOST, (1,)),)
    assert device.step(spans(range(2))).unfetched == (100,)
    device.step(Plan(1, 3, released=(0,)))
    streamed(device, frames=1)
    assert device.step(spans(range(2))).unfetched == ()


def test_a_new_epoch_streams_nothing_of_the_old_one() -> None:
    device = filled()
    streamed(device)
    device.tiers.reset()
    streamed(device, frames=1)
    device.step(spans(range(LAYERS)))
    assert device.now == (10_000 + 8) * MS
