"""Conversations that come back to a simulated group whose blocks others have taken meanwhile."""

from __future__ import annotations

import pytest

from albireo.contract.tiers import TierShape
from albireo.planning.hits import hit_tokens
from albireo.planning.result import SimulationResult
from albireo.planning.simulation.run import simulate
from albireo.planning.workload import Workload, WorkloadRequest
from worker_svc.cost.device import STEADY
from worker_svc.cost.interface import HostCost
from worker_svc.cost.tiers import NO_TIERS, DescribedTiers
from worker_svc.cost.work import StepWork

CONVERSATIONS, PROMPT = 8, 800
STEP, TOKEN = 0.010, 100e-6  # a block takes 1.6 ms to compute


class Prefill:
    """Steps take as long as their prompts; see CostModel."""

    name = "prefill"
    tp = 1
    variation = STEADY

    def forward_seconds(self, work: StepWork) -> float:
        return STEP + TOKEN * work.prefill

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        return 0.0

    def host(self, work: StepWork) -> HostCost:
        return HostCost(t1=1e-4, t2=1e-4, t5=1e-4)


def tiers(*read_ms: float, frames: int = 1000) -> DescribedTiers:
    shapes = (TierShape(f"tier{n}", frames, ms / 1e3, ms / 1e3) for n, ms in enumerate(read_ms))
    return DescribedTiers(tuple(shapes), layers=24, block_bytes=24 << 15)


def run(below: DescribedTiers = NO_TIERS, *, last_first: bool = False) -> SimulationResult:
    """Two turns of each, ``last_first`` or in order; blocks are enough for two conversations."""
    thinks = [3.0 + 0.6 * (CONVERSATIONS - i) * last_first for i in range(CONVERSATIONS)]
    first = [WorkloadRequest(i * 0.3, PROMPT, 9) for i in range(CONVERSATIONS)]
    second = [WorkloadRequest(0.0, PROMPT + 40, 9, after=i, think=think) for i, think in enumerate(thinks)]
    workload = Workload("returns", (*first, *second))
    return simulate(
        workload, Prefill(), num_blocks=110, max_seqs=2, max_model_len=1024, tiers=below, gateway_seconds=0.0
    )


def ttft(result: SimulationResult) -> float:
    """The mean of the second turns."""
    assert [request.error for request in result.requests] == [""] * 2 * CONVERSATIONS
    return sum(request.ttft for request in result.requests[CONVERSATIONS:]) / CONVERSATIONS


def test_what_comes_back_is_fetched_instead_of_computed() -> None:
    alone, below = run(), run(tiers(0.2))
    assert hit_tokens(alone) == {"device": 0}
    assert hit_tokens(below) == {"device": 0, "tier0": CONVERSATIONS * PROMPT}
    assert below.totals.prefill_tokens == alone.totals.prefill_tokens - CONVERSATIONS * PROMPT
    assert ttft(below) < 0.4 * ttft(alone)
    # 50 blocks are read in 10 ms, while the layers of a step that has nothing else to do compute for 14.
    assert 0 < below.totals.kv_wait < CONVERSATIONS * 0.002


def test_a_tier_that_is_slower_than_computing_brings_nothing() -> None:
    alone, below = run(), run(tiers(5.0))
    assert hit_tokens(below) == {"device": 0, "tier0": 0}
    assert ttft(below) == pytest.approx(ttft(alone), rel=0.05)
    assert below.totals.kv_wait == 0


def test_the_fastest_tier_that_has_a_block_is_read() -> None:
    below = run(tiers(0.2, 0.4))
    assert hit_tokens(below) == {"device": 0, "tier0": CONVERSATIONS * PROMPT, "tier1": 0}


def test_what_does_not_fit_the_first_tier_comes_from_the_second() -> None:
    wide = tiers(0.2, 0.4)
    small = TierShape("tier0", 150, 0.2e-3, 0.2e-3)
    below = DescribedTiers((small, wide.shapes[1]), wide.layers, wide.block_bytes)
    found = hit_tokens(run(below, last_first=True))
    assert min(found.values()) > 0
    assert sum(found.values()) == CONVERSATIONS * PROMPT


def test_equal_arguments_give_equal_results() -> None:
    first, second = run(tiers(0.2, 0.4)), run(tiers(0.2, 0.4))
    assert (first.requests, first.totals) == (second.requests, second.totals)
