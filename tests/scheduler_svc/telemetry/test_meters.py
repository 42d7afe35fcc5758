"""The scheduler's metrics: totals outlive groups, names are few, steps are folded once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from albireo.contract.plan import GroupShape, SamplingParams, StepResult, Submission
from albireo.telemetry import catalogue, tier_metrics
from albireo.telemetry.metric import Metric
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import MAX_TENANTS, GroupStats, Limits, SchedulerCore, TierStats
from scheduler_svc.telemetry.group_report import GroupReport
from scheduler_svc.telemetry.meters import MAX_GROUPS, SchedulerMeters
from tests.albireo.telemetry.kept import KeptTelemetry

SHAPE = GroupShape(64, 4, 256)


def stats(**values: object) -> GroupStats:
    """Those of a group that has done nothing, but for ``values``."""
    core = SchedulerCore(Limits(max_num_seqs=4), epoch=1, salt=b"")
    return replace(core.join("g0", SHAPE).stats(), **values)  # type: ignore[arg-type]


def report(name: str, **values: object) -> GroupReport:
    return GroupReport(name, "0a", "cpu", 1, stats(**values), look_ahead=2, beat_age=0.2, ranks=[])


def core_with_waiting(tenants: list[str]) -> SchedulerCore:
    core = SchedulerCore(Limits(max_num_seqs=4), epoch=1, salt=b"")
    for number, tenant in enumerate(tenants):
        submission = Submission(str(number), (1, 2), SamplingParams(max_tokens=3, seed=0), tenant=tenant, n=2)
        core.submit(submission, 0.0)
    return core


@pytest.fixture
def telemetry() -> KeptTelemetry:
    return KeptTelemetry()


@pytest.fixture
def meters(telemetry: KeptTelemetry) -> SchedulerMeters:
    return SchedulerMeters(telemetry)


def test_totals_go_on_by_name_where_a_group_is_closed(
    telemetry: KeptTelemetry, meters: SchedulerMeters
) -> None:
    def outputs() -> dict[str, float]:
        return {name: value for (name,), value in telemetry.values(catalogue.OUTPUT_TOKENS).items()}

    meters.update(control.Load(), [report("a", output_tokens=5), report("b", output_tokens=1)], backlog=0)
    assert outputs() == {"a": 5, "b": 1}
    meters.group_closed("a", "heartbeat", stats(output_tokens=7, running=3))
    assert outputs() == {"a": 7, "b": 1}
    meters.update(control.Load(), [report("a", output_tokens=2), report("b", output_tokens=2)], backlog=0)
    assert outputs() == {"a": 9, "b": 2}
    closings = telemetry.values(catalogue.GROUP_CLOSINGS)
    assert closings[("heartbeat",)] == 1
    assert closings[("left",)] == 0
    assert telemetry.values(catalogue.MOVED_REQUESTS)[()] == 3


def test_amounts_are_those_of_the_groups_that_serve(
    telemetry: KeptTelemetry, meters: SchedulerMeters
) -> None:
    load = control.Load(epoch=3, waiting=3, wait_seconds=1.5)
    meters.update(load, [report("a", slots_free=1, blocks_free=60), report("b")], backlog=4)
    found: dict[Metric, dict[tuple[str, ...], float]] = {
        metric: telemetry.values(metric)
        for metric in (catalogue.SLOTS_USED, catalogue.KV_USED, catalogue.KV_TOTAL, catalogue.LOOK_AHEAD)
    }
    assert list(found.values()) == [
        {("a",): 3, ("b",): 0},
        {("a",): 4, ("b",): 0},
        {("a",): 64, ("b",): 64},
        {("a",): 2, ("b",): 2},
    ]
    alone = (catalogue.WAITING, catalogue.GROUPS, catalogue.INBOX_BACKLOG, catalogue.PREDICTED_WAIT)
    assert [telemetry.values(metric)[()] for metric in alone] == [3, 2, 4, 1.5]
    meters.update(control.Load(wait_seconds=-1), [], backlog=0)
    assert telemetry.values(catalogue.SLOTS_USED) == {}
    assert telemetry.values(catalogue.GROUPS)[()] == 0
    assert telemetry.values(catalogue.PREDICTED_WAIT) == {}


def test_streamed_requests_are_those_of_groups_that_have_tiers(
    telemetry: KeptTelemetry, meters: SchedulerMeters
) -> None:
    tiers = (TierStats("disk", 10, 4),)
    groups = [report("a", tiers=tiers, streamed=2, streamed_blocks=70), report("b", tiers=tiers), report("c")]
    meters.update(control.Load(), groups, backlog=0)
    assert telemetry.values(tier_metrics.STREAMED_REQUESTS) == {("a",): 2, ("b",): 0}
    assert telemetry.values(tier_metrics.STREAMED_BLOCKS) == {("a",): 70, ("b",): 0}


def test_tiers_of_groups_are_exported_with_them(telemetry: KeptTelemetry, meters: SchedulerMeters) -> None:
    disk = TierStats("disk", 10, 4, blocks_fetched=3)
    meters.update(control.Load(), [report("a", tiers=(disk,)), report("b")], backlog=0)
    assert telemetry.values(tier_metrics.TIER_FETCHED) == {("a", "disk"): 3}
    meters.group_closed("a", "left", stats(tiers=(replace(disk, blocks_fetched=5),)))
    assert telemetry.values(tier_metrics.TIER_FETCHED) == {("a", "disk"): 5}
    assert telemetry.values(tier_metrics.TIER_USED) == {}


def test_an_epoch_after_another_ones_is_a_failover(telemetry: KeptTelemetry, meters: SchedulerMeters) -> None:
    meters.opened(5)
    found = (catalogue.EPOCH, catalogue.EPOCHS, catalogue.FAILOVERS)
    assert [telemetry.values(metric)[()] for metric in found] == [5, 1, 1]
    first = KeptTelemetry()
    SchedulerMeters(first).opened(1)
    assert first.values(catalogue.FAILOVERS)[()] == 0


def test_the_core_names_a_few_tenants_and_counts_all() -> None:
    few = core_with_waiting(["a", "b", "a"]).stats()
    assert few.waiting_by_tenant == {"a": 4, "b": 2}  # branches, held ones too
    many = core_with_waiting(["busy", "busy", *(f"t{n}" for n in range(2 * MAX_TENANTS))]).stats()
    assert len(many.waiting_by_tenant) == MAX_TENANTS + 1
    assert many.waiting_by_tenant["busy"] == 4
    assert sum(many.waiting_by_tenant.values()) == many.waiting


def test_tenants_that_change_all_the_time_add_a_bounded_number_of_series(
    telemetry: KeptTelemetry, meters: SchedulerMeters
) -> None:
    for round_number in range(5):
        tenants = {f"t{round_number}-{n}": 1 for n in range(20)}
        meters.update(control.Load(waiting_by_tenant=tenants), [], backlog=0)
        depths = telemetry.values(catalogue.QUEUE_DEPTH)
        assert sum(depths.values()) == 20
        assert len(depths) <= MAX_TENANTS + 1
    assert depths[("default",)] == 0
    assert depths[("other",)] == 20


def test_groups_beyond_a_number_of_names_are_one_series(
    telemetry: KeptTelemetry, meters: SchedulerMeters
) -> None:
    meters.update(control.Load(), [report(f"g{n}", running=1) for n in range(MAX_GROUPS + 5)], backlog=0)
    running = telemetry.values(catalogue.RUNNING)
    assert len(running) == MAX_GROUPS + 1
    assert running[("other",)] == 5
    for number in (MAX_GROUPS, MAX_GROUPS + 1):
        for step in range(3, 6):
            meters.step(f"g{number}", StepResult(1, step), result(step), None)
    assert telemetry.values(catalogue.STEPS) == {("other",): 6}
    # Each has a step between two others, whatever the other group's steps are called.
    assert telemetry.counted(catalogue.STEP_PERIOD, "other") == 2


def result(step: int, **timing: int) -> log.StepResult:
    begin = step * 10_000_000
    moments: dict[str, Any] = {
        "settled_step": step - 2,
        "plan_begin": begin - 9_000_000,
        "fetched": begin - 5_000_000,
        "staged": begin - 4_000_000,
        "forward_begin": begin,
        "sampling_begin": begin + 8_000_000,
        "sampling_end": begin + 9_900_000,
        **timing,
    }
    return log.StepResult(timing=control.StepTiming(**moments), decodes=3, prefill_tokens=0)


def test_steps_are_counted_by_group_and_task(telemetry: KeptTelemetry, meters: SchedulerMeters) -> None:
    for step in range(3, 8):
        meters.step("a", StepResult(1, step), result(step), None if step == 3 else -1e-3)
        meters.step("b", StepResult(1, step), result(step), None)
    # The times of a step need the one before it and the one after.
    for task in ("t1", "t2", "t3", "t4", "t5"):
        assert telemetry.counted(catalogue.STEP_TASK, task, "a") == 3
    for task in ("t1", "t2", "t5"):
        assert telemetry.counted(catalogue.STEP_TASK_VISIBLE, task, "b") == 3
    assert telemetry.counted(catalogue.STEP_PERIOD, "a") == 3
    assert telemetry.counted(catalogue.STEP_PLAN_WAIT, "a") == 4
    wait = telemetry.folded(catalogue.STEP_PLAN_WAIT, {"albireo.group": "a"})
    assert wait.sum == 0  # it was there in time
    assert telemetry.counted(catalogue.STEP_ROWS, "a") == 5
    forward = telemetry.folded(catalogue.STEP_TASK, {"task": "t3", "albireo.group": "a"})
    assert forward.sum == 3 * 8e-3
    assert telemetry.values(catalogue.STEPS) == {("a",): 5, ("b",): 5}


def test_steps_of_another_life_follow_none_of_the_last(
    telemetry: KeptTelemetry, meters: SchedulerMeters
) -> None:
    for step in (2, 3):
        meters.step("a", StepResult(1, step), result(step), None)
    meters.group_closed("a", "left", stats())
    for step in (4, 5):
        meters.step("a", StepResult(1, step), result(step), None)
    assert telemetry.counted(catalogue.STEP_PERIOD, "a") == 0
