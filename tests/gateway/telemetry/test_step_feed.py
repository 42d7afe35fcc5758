"""Step records in the histograms and with the watchers."""

from __future__ import annotations

import asyncio

import pytest

from albireo.v1 import control_pb2 as control
from gateway.telemetry.step_feed import MAX_PENDING, MAX_WATCHERS, StepFeed
from tests.gateway.conftest import eventually
from tests.step_records import overlapped


def test_histograms_hold_every_step_that_can_be_compared() -> None:
    feed = StepFeed()
    for record in overlapped(range(1, 12)):
        record.wasted_rows = 2
        feed.put(record)
    message = feed.stats.message(simulated=True)
    found = {histogram.name: histogram for histogram in message.histograms}
    assert {"t1", "t2", "t3", "t4", "t5", "visible", "visible_t1", "plan_age", "period"} <= set(found)
    assert not any(found.pop("kv_wait").counts)
    assert all(sum(histogram.counts) == 9 for histogram in found.values())
    forward = found["t3"]
    assert forward.sum == pytest.approx(9 * 8e-3)
    bucket = list(forward.counts).index(9)
    assert forward.bounds[bucket - 1] < 8e-3 <= forward.bounds[bucket]
    assert message.wasted_rows == 22
    assert message.look_ahead == 1
    assert message.simulated


def test_waits_for_kv_are_counted_of_all_steps_that_waited() -> None:
    """Most of them prefill, and are no part of the other histograms."""
    feed = StepFeed()
    for record in overlapped(range(1, 9)):
        if record.step % 2 == 0:
            record.prefill_tokens = 16
            record.timing.kv_wait = 2_000_000
        feed.put(record)
    found = {histogram.name: histogram for histogram in feed.stats.message(simulated=False).histograms}
    assert sum(found["t3"].counts) == 0
    assert sum(found["kv_wait"].counts) == 4
    assert found["kv_wait"].sum == pytest.approx(8e-3)


async def test_a_watcher_sees_steps_and_a_slow_one_delays_no_other() -> None:
    feed = StepFeed()
    seen: list[control.StepRecord] = []

    async def watch() -> None:
        async for record in feed.watch():
            seen.append(record)  # noqa: PERF401  (until cancelled)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    for record in overlapped(range(1, MAX_PENDING + 50)):  # without giving the watcher a turn
        feed.put(record)
    await eventually(lambda: len(seen) >= MAX_PENDING)
    assert [record.step for record in seen] == list(range(1, MAX_PENDING + 1))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_watchers_are_bounded_and_leave_no_trace() -> None:
    feed = StepFeed()
    watches = [feed.watch() for _ in range(MAX_WATCHERS)]
    tasks = [asyncio.ensure_future(anext(watch)) for watch in watches]
    await asyncio.sleep(0)
    with pytest.raises(OverflowError):
        await anext(feed.watch())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for watch in watches:
        await watch.aclose()
    feed.put(overlapped([1])[0])
    free = asyncio.ensure_future(anext(feed.watch()))
    await asyncio.sleep(0)
    feed.put(overlapped([2])[0])
    assert (await free).step == 2
