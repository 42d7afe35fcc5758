"""Layers that wait for fetches, and for what is read for them while they compute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_svc.runner.simulated_layers import LayerTimes, Reading, run_layers

times = st.integers(0, 10**6)


@given(forward=times, there=st.lists(times, min_size=1, max_size=80).map(sorted))
def test_fetches_are_no_faster_than_either_side_and_at_worst_their_sum(
    forward: int, there: list[int]
) -> None:
    found = run_layers(1000, forward, there)
    assert found.end == 1000 + forward + found.waited
    assert found.stream_waited == 0
    assert max(1000 + forward, there[-1]) <= found.end <= max(1000, there[-1]) + forward


@given(
    forward=times,
    reads=st.lists(times, min_size=1, max_size=80),
    begin=times,
    ahead=st.integers(0, 10**7),
)
def test_reading_is_no_faster_than_either_side_and_at_worst_their_sum(
    forward: int, reads: list[int], begin: int, ahead: int
) -> None:
    now, total = 500_000, sum(reads)
    found = run_layers(now, forward, [now] * len(reads), Reading(begin, reads, ahead))
    assert found.waited == 0
    assert found.end == now + forward + found.stream_waited
    last = max((layer for layer, seconds in enumerate(reads) if seconds), default=0)
    tail = forward - forward * (last + 1) // len(reads)  # behind the last layer that reads
    before = min(ahead, max(0, now - begin), total)
    assert found.end >= max(now + forward, now + total - before + (tail if total > before else 0))
    assert found.end <= max(now, begin) + forward + total
    if total:
        assert begin + total <= found.read <= found.end


@given(forward=times, reads=st.lists(times, min_size=1, max_size=40), aheads=st.tuples(times, times))
def test_more_buffers_make_no_step_longer(forward: int, reads: list[int], aheads: tuple[int, int]) -> None:
    there = [0] * len(reads)
    less, more = (run_layers(0, forward, there, Reading(0, reads, ahead)) for ahead in sorted(aheads))
    assert more.end <= less.end


@pytest.mark.parametrize(
    ("ahead", "end"),
    [
        (0, 35),  # 10, 5, 10, 10: nothing is there before its layer
        (3, 32),
        (10, 30),  # during the second layer, which reads nothing, 5 are read for the third
        (100, 30),
    ],
)
def test_what_is_read_ahead_is_bounded(ahead: int, end: int) -> None:
    assert run_layers(0, 4 * 5, [0] * 4, Reading(0, (10, 0, 10, 10), ahead)).end == end


def test_a_layer_waits_for_its_fetch_and_then_for_its_reading() -> None:
    found = run_layers(100, 40, [100, 150], Reading(100, (30, 60), 0))
    # The first one reads for 30 while it computes for 20; the second begins with its fetch.
    assert found == LayerTimes(end=150 + 40, waited=20, stream_waited=10 + 20, read=190)


def test_without_waits_layers_take_their_forward_to_the_nanosecond() -> None:
    assert run_layers(7, 100, [7] * 3) == LayerTimes(107, 0, 0, 0)
