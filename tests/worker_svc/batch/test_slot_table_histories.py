"""The slot table with the scheduler core, over histories that hypothesis makes up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from albireo.contract.plan import Finish, GroupShape, Plan, SamplingParams, StepResult, Submission
from scheduler_svc.core import Limits, SchedulerCore
from worker_svc.batch.slot_table import HostBatch, SlotTable

SHAPE = GroupShape(num_blocks=6, max_seqs=3, max_model_len=96)
SAMPLING = SamplingParams(max_tokens=50, seed=0)

Histories = st.lists(
    st.tuples(st.integers(1, 40), st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=7
)


@settings(deadline=None)  # the machine may be busy
@given(
    Histories,
    st.integers(1, 3),
    st.sampled_from([5, 16, 64]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_the_table_follows_the_scheduler(
    requests: list[tuple[int, int, int]], ahead: int, chunk: int, prefix_cache: bool, random: Random
) -> None:
    """Admissions, chunks, pauses, preemptions, hits and wasted rows: each plan's digest is the table's."""
    limits = Limits(64, 3, chunk, ahead, prefix_cache, digest_every=1)
    core, table = SchedulerCore(limits, epoch=1, salt=b""), SlotTable(SHAPE, 1 << 20)
    group = core.join("g", SHAPE)

    def plans(now: float) -> Iterator[Plan]:
        core.place()
        while (plan := group.plan(now)) is not None:
            yield plan
            core.place()

    waiting = deque(sorted(enumerate(requests), key=lambda item: item[1][2]))
    done: set[int] = set()
    left: dict[int, int] = {}  # outputs that a request may still bring, by incarnation
    flights: deque[tuple[Plan, HostBatch]] = deque()
    for step in range(2000):
        while waiting and waiting[0][1][2] <= step:
            number, (length, outputs, _) = waiting.popleft()
            prompt = tuple(range(length))
            core.submit(Submission(str(number), prompt, replace(SAMPLING, max_tokens=outputs)), float(step))
        for plan in plans(float(step)):
            flights.append((plan, table.apply(plan)))  # raises where they part
            assert plan.digest == table.digest()
        if not flights:
            if not waiting:
                break
            continue
        plan, batch = flights.popleft()
        left |= {a.incarnation: a.sampling.max_tokens - a.num_outputs for a in plan.admissions}
        group.settle(_result(plan, batch, left, done, random))
    stats = core.stats()
    assert (stats.running, stats.waiting, stats.blocks_free) == (0, 0, SHAPE.num_blocks)


def _result(plan: Plan, batch: HostBatch, left: dict[int, int], done: set[int], random: Random) -> StepResult:
    """Any tokens, any stops; ends by length where the request says so."""
    assert len(np.unique(batch.forward.kv_rows)) == len(batch.forward.kv_rows), (
        "two rows write to one position"
    )
    assert batch.forward.kv_rows.max(initial=0) < SHAPE.num_blocks * 16, "a row writes the scratch block"
    rows = []
    for slot, incarnation in zip(
        batch.samples.slots.tolist(), batch.samples.incarnations.tolist(), strict=True
    ):
        if incarnation in done:
            continue
        left[incarnation] -= 1
        finish = Finish.LENGTH if left[incarnation] == 0 else Finish.NONE
        if random.random() < 0.05:
            finish = Finish.STOP
        if finish:
            done.add(incarnation)
        rows.append((slot, incarnation, random.randrange(50), int(finish)))
    slots, incarnations, ids, finishes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return StepResult(plan.epoch, plan.step, slots, incarnations, ids, finishes)
