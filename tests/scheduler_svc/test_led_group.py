"""How long a step ran, as its result tells."""

from __future__ import annotations

import pytest

from albireo.v1 import control_pb2 as control
from scheduler_svc.led_group import seconds_of


def test_waits_for_fetches_do_not_count_and_waits_for_streamed_kv_do() -> None:
    timing = control.StepTiming(forward_begin=5_000_000_000, sampling_end=5_100_000_000)
    assert seconds_of(timing) == pytest.approx(0.1)
    timing.kv_wait = 30_000_000
    assert seconds_of(timing) == pytest.approx(0.07)
    timing.stream_wait = 20_000_000
    assert seconds_of(timing) == pytest.approx(0.09)


def test_a_step_without_timestamps_says_nothing() -> None:
    assert seconds_of(control.StepTiming(kv_wait=5)) is None
