"""The ring of staging buffers: what it refuses, and in which order each side waits for the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.worker_svc.cuda.scene import MIXED, ids, in_turn, make_runner, overlapped, staggered
from worker_svc.buffers.staging_ring import BUFFERS, SMALLEST, StagingRing

CPU = torch.device("cpu")


def test_buffers_come_round_again() -> None:
    ring = StagingRing(CPU, None, buffers=3)
    addresses = []
    for number in range(7):
        buffer = ring.take(4)
        buffer.host[:] = number
        buffer.upload()
        buffer.seal()
        assert buffer.words.tolist() == [number] * 4
        addresses.append(buffer.words.data_ptr())
        buffer.release()
    assert len(set(addresses)) == 3
    assert addresses[3:] == addresses[:-3]


def test_a_step_that_is_still_to_come_is_not_overwritten() -> None:
    ring = StagingRing(CPU, None, buffers=3)
    buffers = [ring.take(1) for _ in range(3)]
    with pytest.raises(RuntimeError, match="staged step 0 has not been executed"):
        ring.take(1)
    buffers[0].release()
    assert ring.take(1).number == 3


def test_a_step_that_is_dropped_gives_its_buffer_back() -> None:
    ring = StagingRing(CPU, None, buffers=2)
    assert [ring.take(1).number for _ in range(5)] == [0, 1, 2, 3, 4]


def test_buffers_grow_by_powers_of_two_and_keep_their_size() -> None:
    ring = StagingRing(CPU, None, buffers=1)
    capacities = []
    for size in (1, SMALLEST, SMALLEST + 1, 3, 5 * SMALLEST):
        buffer = ring.take(size)
        assert len(buffer.host) == len(buffer.words) == size
        capacities.append(buffer.words.untyped_storage().nbytes() // 8)
        buffer.release()
    assert capacities == [SMALLEST, SMALLEST, 2 * SMALLEST, 2 * SMALLEST, 8 * SMALLEST]


class Device:
    """Stands in for streams and events: writes down who records and who waits."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.numbers = itertools.count()

    def stream(self, name: str) -> object:
        device = self

        class Stream:
            def __init__(self) -> None:
                self.name = name

            def wait_event(self, event: object) -> None:
                device.log.append(f"{name} waits for {event}")

        return Stream()

    def event(self) -> object:
        device, number = self, next(self.numbers)

        class Event:
            def record(self, stream: object) -> None:
                device.log.append(f"{stream.name} records {self}")  # type: ignore[attr-defined]

            def synchronize(self) -> None:
                device.log.append(f"host waits for {self}")

            def __str__(self) -> str:
                return str(number)

        return Event()


def test_order_of_waits_on_a_device_with_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    compute = device.stream("compute")
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: compute)
    ring = StagingRing(CPU, device.stream("copy"), buffers=2)  # type: ignore[arg-type]
    for _ in range(3):
        buffer = ring.take(1)
        buffer.upload()
        buffer.seal()
        buffer.wait()
        buffer.release()
    assert device.log == [
        *("copy records 0", "compute waits for 0", "compute records 1"),
        *("copy records 2", "compute waits for 2", "compute records 3"),
        # The first buffer again: its reader on the device, then the copy out of its pinned half.
        *("copy waits for 1", "host waits for 0"),
        *("copy records 4", "compute waits for 4", "compute records 5"),
    ]


def test_a_runner_stages_as_many_steps_as_there_are_buffers() -> None:
    runner, plans = make_runner(CPU), list(staggered(5, 12, MIXED))
    expected = ids(in_turn(runner, plans))
    runner.reset()
    batches = [runner.prepare(plan) for plan in plans[:BUFFERS]]
    assert ids([runner.execute(batch).to_host() for batch in batches]) == expected[:BUFFERS]
    runner.reset()
    batches = [runner.prepare(plan) for plan in plans[:BUFFERS]]
    with pytest.raises(RuntimeError, match="has not been executed"):
        runner.prepare(plans[BUFFERS])
    assert ids([runner.execute(batch).to_host() for batch in batches]) == expected[:BUFFERS]


def test_overlapped_steps_bring_the_same() -> None:
    runner, plans = make_runner(CPU), list(staggered(6, 20, MIXED))
    expected = in_turn(runner, plans)
    found = overlapped(runner, plans)
    assert ids(found) == ids(expected)
    assert [output.logprobs for output in found] == [output.logprobs for output in expected]
    assert len(np.concatenate([output.ids for output in found])) == 6 * 20
