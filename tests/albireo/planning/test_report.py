"""The report of a simulated run: its figures against a result that is made by hand, and a small real one."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from albireo.contract.tiers import TierShape
from albireo.planning.chart import chart
from albireo.planning.hits import hit_shares
from albireo.planning.report import step_shares, summarize, table
from albireo.planning.result import RequestTimes, SimulationResult, StepTotals
from albireo.planning.simulation.run import simulate
from albireo.planning.workload import Workload, WorkloadRequest
from tests.albireo.planning.simulation.costs import Constant
from worker_svc.cost.interface import HostCost

WORKLOAD = Workload("two requests", (WorkloadRequest(0.0, 4, 3), WorkloadRequest(0.0, 4, 1)), concurrency=2)
RESULT = SimulationResult(
    requests=[
        RequestTimes(sent=0.0, first=1.0, ended=3.0, tokens=3),
        RequestTimes(sent=0.0, first=1.0, ended=1.0, tokens=1),
        RequestTimes(sent=0.5, ended=0.5, error="the queue is full"),
    ],
    totals=StepTotals(
        steps=4,
        decode_rows=6,
        prefill_tokens=20,
        cached_tokens=60,
        fetched_tokens=Counter({1: 48}),
        streamed_tokens=2,
        kv_wait=0.1,
        t1=0.4,
        t3=2.0,
        t4=0.5,
        visible=0.5,
        visible_t1=0.5,
        kv_blocks_used=6.0,
    ),
    seconds=4.0,
    preemptions=1,
    num_blocks=10,
    peak_blocks=4,
    result_periods=[(1.0, 2), (2.0, 1)],
    tiers=(TierShape("host", 8, 1e-3, 1e-3), TierShape("disk", 8, 1e-2, 1e-2)),
)


def test_figures_are_those_of_bench_serve_and_of_the_simulation() -> None:
    found = summarize(RESULT, WORKLOAD)
    assert found["simulated"] is True
    assert found["output_tokens"] == 4
    assert found["errors"] == {"the queue is full": 1}
    assert found["ttft"]["p50"] == 1.0
    assert found["tpot"]["mean"] == 1.0
    assert found["inter_token"]["mean"] == pytest.approx(4 / 3)
    assert found["kv"] == {"blocks": 10, "peak_blocks": 4, "peak_share": 0.4, "mean_share": 0.15}
    assert found["steps"]["seconds"]["t1"] == pytest.approx(0.1)
    assert found["preemptions"] == 1
    assert found["streamed_tokens"] == 2


def test_hits_are_counted_by_where_the_kv_was() -> None:
    found = summarize(RESULT, WORKLOAD)
    assert found["prefix_cache"] == {
        "prompt_tokens": 80,
        "hit_tokens": {"device": 12, "host": 0, "disk": 48},
    }
    assert found["kv_wait"] == {"seconds": 0.1, "share": pytest.approx(0.05)}
    assert hit_shares(RESULT) == {"device": 0.15, "disk": 0.6}


def test_the_shares_of_a_run_add_up_to_it() -> None:
    shares = step_shares(RESULT)
    assert shares["other"] == pytest.approx(0.25)
    assert sum(shares.values()) == pytest.approx(1)


def test_a_run_without_requests_has_a_report() -> None:
    empty = SimulationResult([], StepTotals(), 0.0, 0, 10, 0)
    found = summarize(empty, Workload("none", ()))
    assert found["output_tokens_per_second"] == 0
    assert sum(found["step_shares"].values()) == 0


def test_the_table_says_that_it_is_simulated_and_where_its_costs_are_from() -> None:
    summary = {"setup": "m on d, tp 2", "source": "A data\nsheet. More.", **summarize(RESULT, WORKLOAD)}
    console = Console(width=120, file=io.StringIO())
    console.print(table(summary))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "simulated: m on d, tp 2" in text
    assert "two requests. Cost model: A data sheet" in text
    assert "the queue is full" in text
    assert "T1 of a step" in text


def test_visible_parts_of_a_synchronous_run_are_the_hosts_times() -> None:
    host = HostCost(t1=0.003, t2=0.002, t5=0.001)
    workload = Workload("one", (WorkloadRequest(0.0, 16, 50),), concurrency=1)
    cost = Constant(host_cost=host)
    result = simulate(workload, cost, num_blocks=100, max_seqs=4, max_model_len=128, synchronous=True)
    totals = result.totals
    parts = [totals.visible_t1, totals.visible_t2, totals.visible_t5]
    assert parts == pytest.approx([49 * 0.003, 49 * 0.002, 49 * 0.001])
    assert sum(parts) == pytest.approx(totals.visible)
    assert summarize(result, workload)["inter_token"]["p50"] == pytest.approx(0.026)


def test_a_chart_is_drawn(tmp_path: Path) -> None:
    requests = tuple(WorkloadRequest(0.01 * i, 16, 5) for i in range(20))
    result = simulate(Workload("w", requests), Constant(), num_blocks=100, max_seqs=4, max_model_len=128)
    chart(result, "simulated: a test", tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
