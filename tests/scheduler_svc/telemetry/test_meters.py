"""The scheduler's metrics: totals outlive epochs, tenants stay few, steps are folded once."""

from __future__ import annotations

from dataclasses import replace

from albireo.contract.plan import GroupShape, SamplingParams, StepResult, Submission
from albireo.telemetry import catalogue
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import MAX_TENANTS, CoreStats, Limits, SchedulerCore
from scheduler_svc.telemetry.meters import SchedulerMeters
from tests.albireo.telemetry.kept import KeptTelemetry


def stats(**values: object) -> CoreStats:
    """Those of a core that has done nothing, but for ``values``."""
    core = SchedulerCore(GroupShape(64, 4, 256), Limits(max_num_seqs=4), epoch=1, salt=b"")
    return replace(core.stats(), **values)  # type: ignore[arg-type]


def core_with_waiting(tenants: list[str]) -> SchedulerCore:
    core = SchedulerCore(GroupShape(64, 4, 256), Limits(max_num_seqs=4), epoch=1, salt=b"")
    for number, tenant in enumerate(tenants):
        submission = Submission(str(number), (1, 2), SamplingParams(max_tokens=3, seed=0), tenant=tenant, n=2)
        core.submit(submission, 0.0)
    return core


def test_totals_go_on_where_an_epoch_ends() -> None:
    telemetry = KeptTelemetry()
    meters = SchedulerMeters(telemetry)

    def totals() -> tuple[float, float]:
        return telemetry.values(catalogue.OUTPUT_TOKENS)[()], telemetry.values(catalogue.WASTED_ROWS)[()]

    seen = [totals()]
    for epoch in (1, 2):
        meters.update(stats(output_tokens=5, wasted_rows=1), epoch=epoch, look_ahead=1, backlog=0)
        seen.append(totals())
        last = stats(output_tokens=7, wasted_rows=1)
        meters.opened(epoch + 1, "group_joined", failover="group", last=last)
        seen.append(totals())
    assert seen == [(0, 0), (5, 1), (7, 1), (12, 2), (14, 2)]
    assert telemetry.values(catalogue.EPOCHS)[("group_joined",)] == 2
    assert telemetry.values(catalogue.FAILOVERS) == {("group",): 2, ("scheduler",): 0}
    assert telemetry.values(catalogue.EPOCH)[()] == 3


def test_amounts_are_those_of_the_last_look_and_none_without_a_group() -> None:
    telemetry = KeptTelemetry()
    meters = SchedulerMeters(telemetry)
    meters.update(stats(slots_free=1, blocks_free=60, waiting=3), epoch=1, look_ahead=2, backlog=4)
    found = {
        metric: telemetry.values(metric)[()]
        for metric in (catalogue.SLOTS_USED, catalogue.KV_USED, catalogue.KV_TOTAL, catalogue.WAITING)
    }
    assert list(found.values()) == [3, 4, 64, 3]
    assert telemetry.values(catalogue.LOOK_AHEAD)[()] == 2
    assert telemetry.values(catalogue.INBOX_BACKLOG)[()] == 4
    meters.update(None, epoch=2, look_ahead=1, backlog=0)
    assert telemetry.values(catalogue.SLOTS_USED)[()] == 0


def test_the_core_names_a_few_tenants_and_counts_all() -> None:
    few = core_with_waiting(["a", "b", "a"]).stats()
    assert few.waiting_by_tenant == {"a": 4, "b": 2}  # branches, held ones too
    many = core_with_waiting(["busy", "busy", *(f"t{n}" for n in range(2 * MAX_TENANTS))]).stats()
    assert len(many.waiting_by_tenant) == MAX_TENANTS + 1
    assert many.waiting_by_tenant["busy"] == 4
    assert sum(many.waiting_by_tenant.values()) == many.waiting


def test_tenants_that_change_all_the_time_add_a_bounded_number_of_series() -> None:
    telemetry = KeptTelemetry()
    meters = SchedulerMeters(telemetry)
    for round_number in range(5):
        tenants = {f"t{round_number}-{n}": 1 for n in range(20)}
        meters.update(stats(waiting_by_tenant=tenants), epoch=1, look_ahead=1, backlog=0)
        depths = telemetry.values(catalogue.QUEUE_DEPTH)
        assert sum(depths.values()) == 20
        assert len(depths) <= MAX_TENANTS + 1
    assert depths[("default",)] == 0
    assert depths[("other",)] == 20


def result(step: int, **timing: int) -> log.StepResult:
    begin = step * 10_000_000
    moments = {
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


def test_steps_are_counted_by_task() -> None:
    telemetry = KeptTelemetry()
    meters = SchedulerMeters(telemetry)
    for step in range(3, 8):
        meters.step(StepResult(1, step), result(step), None if step == 3 else -1e-3)
    # The times of a step need the one before it and the one after.
    for task in ("t1", "t2", "t3", "t4", "t5"):
        assert telemetry.counted(catalogue.STEP_TASK, task) == 3
    for task in ("t1", "t2", "t5"):
        assert telemetry.counted(catalogue.STEP_TASK_VISIBLE, task) == 3
    assert telemetry.counted(catalogue.STEP_PERIOD) == 3
    assert telemetry.counted(catalogue.STEP_PLAN_WAIT) == 4
    assert telemetry.folded(catalogue.STEP_PLAN_WAIT).sum == 0  # it was there in time
    assert telemetry.counted(catalogue.STEP_ROWS) == 5
    assert telemetry.folded(catalogue.STEP_TASK, {"task": "t3"}).sum == 3 * 8e-3
    assert telemetry.values(catalogue.STEPS)[()] == 5
