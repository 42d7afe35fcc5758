"""The tokens of the simulated device, and how long its steps take where KV comes from a tier."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.contract.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams
from albireo.contract.tiers import Fetch, Offload, Span, Spill, TierShape
from albireo.models import TINY
from albireo.virtual.clock import VirtualClock
from tests.albireo.planning.simulation.costs import Constant
from tests.races.fake_scheduler import VOCAB, tokens
from worker_svc.batch.slot_table import SlotTable
from worker_svc.cost.tiers import DescribedTiers
from worker_svc.runner.simulated_runner import SimulatedRunner, token_ids
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.rows import SampleRows


def rows(
    requests: list[tuple[int, int, SamplingParams]], eos_ids: frozenset[int] = frozenset()
) -> SampleRows:
    """Rows that sample in a step that admits requests of (slot, outputs so far, sampling)."""
    plan = Plan(
        1,
        1,
        admissions=tuple(
            Admission(slot, slot + 1, f"r{slot}", (5,) * (1 + outputs), outputs, 0, sampling)
            for slot, outputs, sampling in requests
        ),
        grants=tuple(Grant(slot, (2 * slot, 2 * slot + 1)) for slot, _, _ in requests),
        chunks=tuple(Chunk(slot, 0, 1 + outputs) for slot, outputs, _ in requests),
    )
    return SlotTable(GroupShape(32, 16, 32), VOCAB, eos_ids).apply(plan).samples


seeds = st.integers(0, 2**64 - 1)


@given(requests=st.dictionaries(st.integers(0, 15), st.tuples(seeds, st.integers(0, 30)), min_size=1))
def test_a_token_depends_on_seed_and_position_and_nothing_else(requests: dict[int, tuple[int, int]]) -> None:
    sampled = token_ids(
        rows([(slot, at, SamplingParams(99, seed)) for slot, (seed, at) in requests.items()]), VOCAB
    )
    assert sampled.tolist() == [tokens(seed, at, 1)[0] for seed, at in requests.values()]


@given(seed=seeds, at=st.integers(0, 10), width=st.integers(1, 40))
def test_below_min_tokens_no_end_token_is_drawn(seed: int, at: int, width: int) -> None:
    """The ids around the one that the hash chooses are all end tokens: the first that is none is taken."""
    chosen = tokens(seed, at, 1)[0]
    ends = tuple((chosen + offset) % VOCAB for offset in range(width))
    masked, free = (
        SamplingParams(99, seed, min_tokens=minimum, stop_ids=ends[1:]) for minimum in (at + 1, at)
    )
    sampled = token_ids(rows([(0, at, masked), (1, at, free)], frozenset(ends[:1])), VOCAB)
    assert sampled.tolist() == [(chosen + width) % VOCAB, chosen]


@given(seed=seeds, at=st.integers(0, 10))
def test_an_id_that_is_allowed_and_not_bad_is_drawn(seed: int, at: int) -> None:
    allowed, one, none = (
        SamplingParams(99, seed, allowed_ids=(3, 9, 200), bad_ids=bad) for bad in ((), (3, 9), (3, 9, 200))
    )
    sampled = token_ids(rows([(0, at, allowed), (1, at, one), (2, at, none)]), VOCAB)
    assert sampled[0] in (3, 9, 200)
    assert sampled[1:].tolist() == [200, FAILED]


def test_tokens_are_spread_over_the_vocabulary() -> None:
    drawn = np.array([tokens(seed, 0, 50) for seed in range(200)])
    assert len(np.unique(drawn)) == VOCAB


@pytest.mark.usefixtures("by_layers")
def test_a_step_with_fetched_rows_ends_when_its_layers_have_had_their_kv() -> None:
    tiers = DescribedTiers((TierShape("host", 4, 0.010, 0.001),), layers=2, block_bytes=1 << 17)
    with VirtualClock() as clock:
        runner = SimulatedRunner(
            TINY,
            Constant(t3=0.018, t4=0.002),
            rank=0,
            kv_memory=1 << 20,
            max_seqs=4,
            max_model_len=128,
            tiers=tiers,
            clock=clock,
        )
        assert runner.shape.tiers == tiers.shapes
        runner.reset()
        keys = (bytes(16), bytes([1] * 16))
        filling = Plan(1, 1, spills=(Spill(0, (0, 1), (2, 3), keys),))
        reported = runner.execute(runner.prepare(filling)).to_host().tiers
        assert reported is not None
        assert reported.contents_end
        reading = Plan(
            1,
            2,
            admissions=(Admission(0, 7, "r", (5,) * 40, 0, 32, SamplingParams(9, 0)),),
            fetches=(Fetch(0, 0, (4, 5), (2, 3), keys),),
            grants=(Grant(0, (4, 5, 6)),),
            chunks=(Chunk(0, 32, 8),),
        )
        began = clock.time_ns()
        output = runner.execute(runner.prepare(reading))
        begin, sampling_begin, sampling_end = output.timestamps()
        reported = output.to_host().tiers
    assert reported is not None
    assert [read.blocks for read in reported.read] == [2]
    # The first layer waits for 10 of 20 ms of reading and computes for 9, the second for one more.
    assert reported.kv_wait_ns == 11_000_000
    assert (begin, sampling_begin, sampling_end) == (began, began + 29_000_000, began + 31_000_000)


def test_a_context_may_be_longer_than_the_device_and_its_layers_read_the_tier() -> None:
    tiers = DescribedTiers((TierShape("host", 40, 0.030, 0.001),), layers=4, block_bytes=1 << 17)
    with VirtualClock() as clock:
        cost = Constant(t3=0.018, t4=0.002)
        runner = SimulatedRunner(
            TINY, cost, rank=0, kv_memory=1 << 17, max_seqs=4, max_model_len=10_000, tiers=tiers, clock=clock
        )
        blocks = runner.shape.num_blocks
        assert runner.shape.max_model_len == (40 + blocks // 4) * 16 > blocks * 16
        assert runner.shape.num_layers == runner.config.num_layers == 4
        runner.reset()
        keys = (bytes(16), bytes([1] * 16))
        runner.execute(runner.prepare(Plan(1, 1, spills=(Spill(0, (0, 1), (2, 3), keys),))))
        reading = Plan(
            1,
            2,
            admissions=(Admission(0, 7, "r", (5,) * 40, 0, 32, SamplingParams(9, 0)),),
            offloads=(Offload(0, 0, (2, 3), keys),),
            grants=(Grant(0, (4,)),),
            spans=(Span(0, 32, 8, 0, 2),),
        )
        outputs = [
            runner.execute(runner.prepare(plan))
            for plan in (reading, Plan(1, 3, spans=(Span(0, 32, 8, 2, 4),)))
        ]
        first, second = (output.timestamps() for output in outputs)
        sampled = [output.to_host() for output in outputs]
    # 2 blocks are read in 60 ms, half of it for two layers, which compute for 18.
    assert first[1] - first[0] == second[1] - second[0] == 30_000_000
    assert [len(found.ids) for found in sampled] == [0, 1]
    works = cost.forwards[-2:]
    assert [(work.spans[0].layers, work.whole_rows) for work in works] == [(range(2), 0), (range(2, 4), 0)]
    assert [found.tiers is not None and found.tiers.stream_wait_ns for found in sampled] == [12_000_000] * 2
