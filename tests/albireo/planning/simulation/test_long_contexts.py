"""A simulated request that is longer than the blocks of its group, whose older part a tier holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean

import pytest

from albireo.contract.tiers import TierShape
from albireo.planning.hits import hit_tokens, prompt_tokens
from albireo.planning.result import SimulationResult
from albireo.planning.simulation.run import simulate
from albireo.planning.workload import Workload, WorkloadRequest
from worker_svc.cost.device import STEADY, Variation
from worker_svc.cost.interface import HostCost
from worker_svc.cost.tiers import NO_TIERS, DescribedTiers
from worker_svc.cost.work import StepWork

BLOCKS, LAYERS = 64, 24
PROMPT, OUTPUTS = 4 * BLOCKS * 16, 20
STEP, TOKEN = 0.010, 20e-6
LONG = WorkloadRequest(0.0, PROMPT, OUTPUTS)


@dataclass
class Prefill:
    """A step, and each row of a prompt in each layer, take their time; see CostModel. Keeps the works."""

    works: list[StepWork] = field(default_factory=list)
    name: str = "prefill"
    tp: int = 1
    variation: Variation = STEADY

    def forward_seconds(self, work: StepWork) -> float:
        self.works.append(work)
        return sum(share * (STEP + TOKEN * part.prefill) for share, part in work.parts() if part.rows)

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        return 0.0

    def host(self, work: StepWork) -> HostCost:
        return HostCost(t1=1e-4, t2=1e-4, t5=1e-4)


def tier(read_ms: float) -> DescribedTiers:
    shape = TierShape("host", 8 * BLOCKS, read_ms / 1e3, read_ms / 1e3)
    return DescribedTiers((shape,), LAYERS, block_bytes=LAYERS << 15)


def run(
    below: DescribedTiers, *requests: WorkloadRequest, num_blocks: int = BLOCKS
) -> tuple[SimulationResult, Prefill]:
    cost = Prefill()
    result = simulate(
        Workload("long", requests),
        cost,
        num_blocks=num_blocks,
        max_seqs=4,
        max_model_len=2 * PROMPT,
        tiers=below,
        gateway_seconds=0.0,
    )
    assert [request.error for request in result.requests] == [""] * len(requests)
    assert result.peak_blocks <= num_blocks
    return result, cost


def tpot(result: SimulationResult, request: int = 0) -> float:
    found = result.requests[request].tpot
    assert found is not None
    return found


def test_what_no_tier_holds_is_refused() -> None:
    with pytest.raises(ValueError, match=f"the context takes {BLOCKS * 16}$"):
        run(NO_TIERS, LONG)


@pytest.mark.parametrize("read_ms", [0.01, 0.2, 1.0])
def test_the_pace_of_a_long_context_is_that_of_the_tier_or_of_the_steps(read_ms: float) -> None:
    result, cost = run(tier(read_ms), LONG)
    assert result.preemptions == 0
    streamed = PROMPT // 16 - BLOCKS // 2  # at least: half of the blocks may be resident
    bound = streamed * read_ms / 1e3
    assert max(bound, STEP) <= tpot(result) <= 1.1 * max(4 * BLOCKS * read_ms / 1e3, STEP + 3e-4)
    rows = sum(len(span.layers) * span.rows for work in cost.works for span in work.spans)
    chunks = sum(work.prefill for work in cost.works if work.spans or work.prefill)
    assert rows / LAYERS + chunks == pytest.approx(PROMPT + OUTPUTS - 1, abs=200)


def test_tokens_of_long_requests_are_counted() -> None:
    result, _ = run(tier(0.2), LONG)
    assert result.totals.streamed_tokens == OUTPUTS
    assert result.totals.prefill_tokens == PROMPT
    assert hit_tokens(result) == {"device": 0, "host": 0}


def test_the_next_turn_of_a_long_conversation_finds_the_last_one_in_the_tier() -> None:
    more = 100
    again = WorkloadRequest(0.0, PROMPT + OUTPUTS + more, OUTPUTS, after=0, think=1.0)
    result, _ = run(tier(0.2), LONG, again)
    found = hit_tokens(result)
    assert found["device"] == 0
    # All blocks but the last ones: when a slot is released, some are not spilled yet.
    assert PROMPT - 16 * BLOCKS <= found["host"] <= PROMPT + OUTPUTS
    assert prompt_tokens(result) == PROMPT + again.prompt
    assert result.requests[1].ttft < 0.5 * result.requests[0].ttft


def test_rows_of_a_long_prompt_cost_what_they_cost_on_a_device_with_enough_memory() -> None:
    enough, _ = run(NO_TIERS, LONG, num_blocks=8 * BLOCKS)
    streamed, _ = run(tier(0.001), LONG)
    assert streamed.requests[0].ttft == pytest.approx(enough.requests[0].ttft, rel=0.35)
    assert tpot(streamed) == pytest.approx(tpot(enough), rel=0.05)


def test_neighbours_of_a_long_context_keep_their_pace() -> None:
    others = [WorkloadRequest(3.0, 60, 150) for _ in range(2)]
    alone, _ = run(tier(1.0), *others)
    together, _ = run(tier(1.0), WorkloadRequest(0.0, PROMPT, 60), *others)
    assert together.requests[0].first < 3.0 < together.requests[0].ended
    slower = mean(tpot(together, number) for number in (1, 2)) / mean(tpot(alone, n) for n in (0, 1))
    assert slower < 1.1
    assert together.totals.kv_wait > 0


def test_equal_arguments_give_equal_results() -> None:
    requests = (LONG, WorkloadRequest(0.5, 60, 50))
    (first, _), (second, _) = run(tier(0.2), *requests), run(tier(0.2), *requests)
    assert (first.requests, first.totals) == (second.requests, second.totals)
