"""Small simulations against times that are computed by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from albireo.planning.result import SimulationResult
from albireo.planning.simulation.run import simulate
from albireo.planning.workload import Workload, WorkloadRequest
from tests.albireo.planning.simulation.costs import Constant
from worker_svc.cost.interface import CostModel, HostCost

HOST = HostCost(t1=0.003, t2=0.002, t5=0.001)
STEP = 0.020


def closed(count: int, *, concurrency: int, prompt: int = 64, outputs: int = 10) -> Workload:
    request = WorkloadRequest(0.0, prompt, outputs)
    return Workload("test", (request,) * count, concurrency=concurrency)


def run(workload: Workload, cost: CostModel, **options: Any) -> SimulationResult:
    """A gateway takes no time unless a test is about it."""
    shape = {"num_blocks": 2000, "max_seqs": 32, "max_model_len": 512, "gateway_seconds": 0.0}
    return simulate(workload, cost, **{**shape, **options})


def test_one_request_pays_for_the_host_once_where_steps_overlap() -> None:
    result = run(closed(1, concurrency=1), Constant(host_cost=HOST))
    [request] = result.requests
    assert request.ttft == pytest.approx(0.003 + 0.002 + STEP + 0.001)
    assert request.tpot == pytest.approx(STEP)
    assert result.seconds == pytest.approx(request.ended) == pytest.approx(0.006 + 10 * STEP)
    totals = result.totals
    assert (totals.steps, totals.decode_rows, totals.prefill_tokens) == (10, 9, 64)
    assert totals.visible == pytest.approx(0)
    assert [totals.t1, totals.t2, totals.t3, totals.t4, totals.t5] == pytest.approx(
        [0.03, 0.02, 0.18, 0.02, 0.01]
    )


def test_without_overlap_every_step_pays_for_the_host() -> None:
    result = run(closed(1, concurrency=1), Constant(host_cost=HOST), synchronous=True)
    [request] = result.requests
    assert request.ttft == pytest.approx(STEP + 0.006)
    assert request.tpot == pytest.approx(STEP + 0.006)
    assert result.totals.visible == pytest.approx(9 * 0.006)
    assert [period for period, _ in result.step_periods] == pytest.approx([0.026] * 8)


def test_host_time_that_exceeds_the_device_is_visible() -> None:
    """Two plans are in flight, so a step waits for T1, T2 and T5 of the step before the last: its period is
    half of all that one step takes."""
    slow = HostCost(t1=0.03, t2=0.0, t5=0.01)
    [request] = run(closed(1, concurrency=1, outputs=101), Constant(host_cost=slow)).requests
    assert request.tpot == pytest.approx((STEP + 0.03 + 0.01) / 2, rel=0.02)


def test_a_batch_runs_at_once_and_the_rest_wait_for_slots() -> None:
    result = run(closed(48, concurrency=48), Constant(), max_seqs=16)
    assert result.seconds == pytest.approx(30 * STEP, abs=3 * STEP)
    assert max(rows for _, rows in result.step_periods) == 16
    assert all(request.tokens == 10 and not request.error for request in result.requests)


@pytest.mark.parametrize(
    ("sampling", "synchronous", "t4"),
    [("parallel", False, 0.001), ("driver", False, 0.002), ("auto", True, 0.002)],
)
def test_who_samples_decides_what_sampling_takes(sampling: str, synchronous: bool, t4: float) -> None:
    workload = closed(20, concurrency=20)
    result = run(workload, Constant(tp=2), sampling=sampling, synchronous=synchronous)
    assert result.totals.t4 == pytest.approx(result.totals.steps * t4)


def test_automatic_sampling_goes_by_the_rows() -> None:
    few, many = (run(closed(rows, concurrency=rows), Constant(tp=2)) for rows in (2, 20))
    assert few.totals.t4 == pytest.approx(few.totals.steps * 0.002)
    assert many.totals.t4 == pytest.approx(many.totals.steps * 0.001)


def test_requests_arrive_at_their_times() -> None:
    requests = tuple(WorkloadRequest(at, 16, 4) for at in (0.0, 0.5, 2.0))
    result = run(Workload("test", requests), Constant())
    assert [request.sent for request in result.requests] == pytest.approx([0.0, 0.5, 2.0])
    assert [request.ttft for request in result.requests] == pytest.approx([STEP] * 3)
    assert result.totals.idle == pytest.approx(2.0 - 8 * STEP)


def test_equal_arguments_give_equal_results() -> None:
    requests = tuple(WorkloadRequest(0.01 * i, 20 + i, 5 + i % 7) for i in range(40))
    first, second = (run(Workload("test", requests), Constant(host_cost=HOST)) for _ in range(2))
    assert dataclasses.replace(first, cpu_seconds=0) == dataclasses.replace(second, cpu_seconds=0)


def test_a_shared_prefix_is_computed_once() -> None:
    requests = tuple(WorkloadRequest(i * 1.0, 100, 4, prefix="p", prefix_tokens=64) for i in range(3))
    result = run(Workload("test", requests), Constant())
    assert result.totals.prefill_tokens == 100 + 2 * 36


def test_prompts_without_a_prefix_share_nothing() -> None:
    result = run(closed(10, concurrency=1, prompt=100), Constant())
    assert result.totals.prefill_tokens == 1000


def test_a_turn_comes_after_the_one_before_and_finds_it_in_the_prefix_cache() -> None:
    turns = (
        WorkloadRequest(0.0, 64, 17),
        WorkloadRequest(0.0, 100, 4, after=0, think=5.0),
        WorkloadRequest(0.0, 120, 4, after=1, think=2.0),
        WorkloadRequest(0.0, 32, 4),
    )
    result = run(Workload("test", turns, concurrency=1), Constant())
    first, second, third, other = result.requests
    assert (second.sent - first.ended, third.sent - second.ended) == pytest.approx((5.0, 2.0))
    assert other.sent == pytest.approx(third.ended)
    # Of the last token of an answer there is no KV: of 80 tokens five blocks, of 103 six.
    assert result.totals.prefill_tokens == 64 + (100 - 80) + (120 - 96) + 32


def test_a_turn_that_adds_nothing_is_refused() -> None:
    turns = (WorkloadRequest(0.0, 64, 16), WorkloadRequest(0.0, 80, 4, after=0))
    with pytest.raises(ValueError, match="request 2: a prompt of 80 tokens adds nothing"):
        run(Workload("test", turns), Constant())


def test_too_few_blocks_preempt_and_all_requests_end_all_the_same() -> None:
    result = run(closed(8, concurrency=8, outputs=200), Constant(), num_blocks=64)
    assert result.preemptions > 0
    assert result.totals.prefill_tokens > 8 * 64  # computed again
    assert all(request.tokens == 200 for request in result.requests)
    assert result.peak_blocks <= 64


def test_a_gateway_takes_requests_one_after_another() -> None:
    result = run(closed(3, concurrency=3), Constant(), gateway_seconds=0.001)
    # The first one's plan is published before the others have come. The plan after it, which is made at the
    # same time, has none of them either.
    assert [request.sent for request in result.requests] == [0, 0, 0]
    first, second, third = (request.ttft for request in result.requests)
    assert first == pytest.approx(0.001 + STEP)
    assert second == third > first + 0.9 * STEP


def test_requests_beyond_the_queue_are_refused() -> None:
    result = run(closed(10, concurrency=10), Constant(), max_seqs=1, max_queue=4)
    refused = [request for request in result.requests if request.error]
    assert {request.error for request in refused} == {"the queue is full"}
    assert len(refused) == 6


def test_progress_counts_ended_requests() -> None:
    seen: list[tuple[int, int]] = []
    run(closed(3, concurrency=1), Constant(), on_progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_workload_of_no_requests_takes_no_time() -> None:
    assert run(Workload("test", ()), Constant()).seconds == 0


@pytest.mark.parametrize(
    ("workload", "options", "problem"),
    [
        (closed(1, concurrency=1, prompt=510), {}, "520 tokens, prompt and output; the context takes 512"),
        (closed(1, concurrency=1, prompt=0), {}, "request 1: prompt and output"),
        (closed(1, concurrency=1), {"max_seqs": 0}, "0 slots"),
        (closed(1, concurrency=1), {"scheduler": {"prefill_chunk": 0}}, "prefill_chunk"),
        (closed(1, concurrency=1), {"scheduler": {"max_num_batched_tokens": 2}}, "max_num_batched_tokens"),
        (closed(1, concurrency=1), {"scheduler": {"chunk": 2}}, "chunk"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(
    workload: Workload, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        run(workload, Constant(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("workload", "cost", "options", "problem"),
    [
        (Workload("w", (WorkloadRequest(1e9, 4, 4),)), Constant(), {}, r"arrives after 1e\+09 s"),
        (closed(1, concurrency=1), Constant(t3=1e300), {}, r"a step of .* rows would take 1e\+300 s"),
        (closed(1, concurrency=1), Constant(t4=float("nan")), {}, "would take nan s"),
        (closed(1, concurrency=1), Constant(), {"num_blocks": 10**9}, "1000000000 KV blocks: a simulation"),
    ],
)
def test_a_run_that_would_not_end_is_refused(
    workload: Workload, cost: Constant, options: dict[str, int], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        run(workload, cost, **options)
