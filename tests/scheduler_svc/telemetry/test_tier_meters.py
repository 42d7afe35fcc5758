"""Metrics of KV tiers: by group and tier; totals outlive groups, names are few."""

from __future__ import annotations

import pytest

from albireo.telemetry import tier_metrics as catalogue
from albireo.v1 import control_pb2 as control
from scheduler_svc.core import TierStats
from scheduler_svc.telemetry.tier_meters import MAX_TIER_NAMES, TierMeters
from tests.albireo.telemetry.kept import KeptTelemetry


def test_amounts_are_those_of_groups_that_serve_and_totals_go_on_by_name() -> None:
    telemetry = KeptTelemetry()
    meters = TierMeters(telemetry)

    def found(used: bool) -> dict[tuple[str, str], float]:
        return telemetry.values(catalogue.TIER_USED if used else catalogue.TIER_SPILLED)

    host, disk = TierStats("host", 10, 4, blocks_spilled=5), TierStats("disk", 90, 20, blocks_spilled=30)
    meters.update([("a", (host, disk)), ("b", (disk,)), ("c", ())])
    assert found(used=True) == {("a", "host"): 4, ("a", "disk"): 20, ("b", "disk"): 20}
    assert found(used=False) == {("a", "host"): 5, ("a", "disk"): 30, ("b", "disk"): 30}
    meters.closed(("a", (host, disk)), [("b", (disk,))])
    assert found(used=True)[("b", "disk")] == 20
    assert found(used=False) == {("a", "host"): 5, ("a", "disk"): 30, ("b", "disk"): 30}
    meters.update([("a", (TierStats("host", 10, 1, blocks_spilled=1),))])
    assert found(used=False) == {("a", "host"): 6, ("a", "disk"): 30}


def test_each_count_has_its_metric() -> None:
    telemetry = KeptTelemetry()
    TierMeters(telemetry).update([("a", (TierStats("disk", 1, 2, 3, 4, 5, 6, 7),))])
    exported = (
        catalogue.TIER_TOTAL,
        catalogue.TIER_USED,
        catalogue.TIER_FETCHED,
        catalogue.TIER_SPILLED,
        catalogue.TIER_LOST,
        catalogue.TIER_FAILED,
        catalogue.TIER_HIT_TOKENS,
    )
    assert [telemetry.values(metric)[("a", "disk")] for metric in exported] == [1, 2, 3, 4, 5, 6, 7]


def test_groups_that_call_their_tiers_differently_all_the_time_add_a_bounded_number_of_series() -> None:
    telemetry = KeptTelemetry()
    meters = TierMeters(telemetry)
    for life in range(5):
        last = ("a", tuple(TierStats(f"tier{life}-{n}", 1, 1, blocks_fetched=1) for n in range(4)))
        meters.update([last])
        meters.closed(last, [])
    fetched = telemetry.values(catalogue.TIER_FETCHED)
    assert len(fetched) == MAX_TIER_NAMES + 1
    assert fetched[("a", "other")] == 20 - MAX_TIER_NAMES
    meters.step("a", control.StepTiming(transfers=[control.KvTransfer(tier="new", bytes=5, write=True)]))
    assert telemetry.values(catalogue.STEP_KV_SPILLED) == {("a", "other"): 5}


def test_copies_of_steps_are_counted_by_tier_and_direction_and_waits_by_group() -> None:
    telemetry = KeptTelemetry()
    meters = TierMeters(telemetry)
    disk, host = control.KvTransfer(tier="disk", bytes=100), control.KvTransfer(tier="host", bytes=7)
    spill = control.KvTransfer(tier="disk", bytes=30, write=True)
    meters.step("a", control.StepTiming(transfers=[disk, host, spill], kv_wait=3_000_000))
    meters.step("a", control.StepTiming(transfers=[disk]))
    meters.step("b", control.StepTiming(transfers=[spill]))
    assert telemetry.values(catalogue.STEP_KV_READ) == {
        ("a", "disk", "fetch"): 200,
        ("a", "host", "fetch"): 7,
    }
    assert telemetry.values(catalogue.STEP_KV_SPILLED) == {("a", "disk"): 30, ("b", "disk"): 30}
    assert telemetry.counted(catalogue.STEP_KV_WAIT, "a", "fetch") == 1
    assert telemetry.counted(catalogue.STEP_KV_WAIT, "b", "fetch") == 0
    assert waits(telemetry, "fetch") == 3e-3


def waits(telemetry: KeptTelemetry, read: str) -> float:
    """Seconds of the group a."""
    return telemetry.folded(catalogue.STEP_KV_WAIT, {"albireo.group": "a", "kv_read": read}).sum


def test_what_layers_of_streamed_requests_read_is_counted_apart() -> None:
    telemetry = KeptTelemetry()
    meters = TierMeters(telemetry)
    fetch = control.KvTransfer(tier="disk", bytes=100)
    stream = control.KvTransfer(tier="disk", bytes=1000, streamed=True)
    timing = control.StepTiming(transfers=[fetch, stream], kv_wait=5_000_000, stream_wait=4_000_000)
    for _ in range(2):
        meters.step("a", timing)
    meters.step("a", control.StepTiming(transfers=[stream], kv_wait=1_000_000, stream_wait=1_000_000))
    assert telemetry.values(catalogue.STEP_KV_READ) == {
        ("a", "disk", "fetch"): 200,
        ("a", "disk", "stream"): 3000,
    }
    counts = [telemetry.counted(catalogue.STEP_KV_WAIT, "a", read) for read in ("fetch", "stream")]
    assert counts == [2, 3]
    assert (waits(telemetry, "fetch"), waits(telemetry, "stream")) == pytest.approx((2e-3, 9e-3))
