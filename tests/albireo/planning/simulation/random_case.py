"""A random workload on a random group, from one seed, and all that its run must keep.

``python -m tests.albireo.planning.simulation.random_case 500`` checks so many; the tests check a few.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from albireo.contract.plan import BLOCK_SIZE, Finish, GroupShape, blocks_for
from albireo.contract.result_rows import rows_of
from albireo.contract.tiers import TierShape
from albireo.planning.simulation.clients import Clients
from albireo.planning.simulation.cluster import GROUP, KEYS, Cluster
from albireo.planning.simulation.drawn_speed import DrawnSpeed
from albireo.planning.workload import SAMPLING_OPTIONS, Workload, WorkloadRequest
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Id, Keyspace
from tests.albireo.planning.simulation.costs import Linear
from worker_svc.cost.device import STEADY
from worker_svc.cost.tiers import DescribedTiers
from worker_svc.cost.work import StepWork

NANOSECOND = 1e-9


class KeptLogs(Keyspace):
    """Keeps every entry of plans and results: the logs themselves are trimmed."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.plans: list[log.Plan] = []
        self.results: list[log.StepResult] = []

    def append(self, key: str, entry_id: Id, data: bytes) -> None:
        super().append(key, entry_id, data)
        if key == KEYS.plans(GROUP.hex) and entry_id[1]:
            self.plans.append(log.PlanEntry.FromString(data).plan)
        if key == KEYS.results(GROUP.hex) and entry_id[1]:
            self.results.append(log.ResultEntry.FromString(data).result)


@dataclass(frozen=True)
class Case:
    workload: Workload
    cost: Linear
    shape: GroupShape
    options: dict[str, Any]
    gateway_seconds: float
    tiers: DescribedTiers
    checks: tuple[float, ...]  # seconds after which the scheduler's ledger is checked, one after the other


def random_case(seed: int) -> Case:
    draw = random.Random(seed)
    context = draw.choice([64, 256, 512])
    slots = draw.choice([1, 2, 8, 32])
    least = blocks_for(context)
    blocks = draw.choice([least, least + draw.randint(0, 3 * slots), least * slots])
    synchronous = draw.random() < 0.25
    scheduler: dict[str, object] = {
        "prefill_chunk": draw.choice([7, 64, 512]),
        "max_num_batched_tokens": draw.choice([slots, slots + 17, 2048]),
        "prefix_cache": draw.random() < 0.8,
        "look_ahead": draw.choice(["1", "1", "2", "auto"]),
    }
    tiers = _tiers(random.Random(f"{seed} tiers"))
    return Case(
        _workload(draw, context),
        Linear(draw.choice([1, 2, 8]), draw.choice([0.1, 1.0, 5.0]), draw.choice([0.0, 1.0, 10.0])),
        GroupShape(blocks, slots, context, tiers.shapes),
        {
            "synchronous": synchronous,
            "sampling": draw.choice(["auto", "parallel", "driver"]),
            "scheduler": scheduler,
        },
        draw.choice([0.0, 1e-3]),
        tiers,
        tuple(draw.uniform(0.0, 0.5) for _ in range(8)),
    )


def _tiers(draw: random.Random) -> DescribedTiers:
    """None, one or two, some of which are too small or too slow."""
    shapes = [
        TierShape(f"tier{n}", draw.choice([1, 9, 200]), *(draw.choice([1e-5, 1e-4, 1e-2]) for _ in range(2)))
        for n in range(draw.choice([0, 0, 1, 2]))
    ]
    return DescribedTiers(tuple(shapes), draw.choice([1, 7, 24]), draw.choice([1, 1 << 20, 1 << 26]))


def _workload(draw: random.Random, context: int) -> Workload:
    count, at = draw.randint(1, 60), 0.0
    requests: list[WorkloadRequest] = []
    shared = draw.randrange(context // 2)
    closed = draw.random() < 0.5
    longest = draw.choice([8, context // 4, context - 1])
    unfinished: list[int] = []  # requests that another turn may continue
    for index in range(count):
        at += 0.0 if closed or draw.random() < 0.4 else draw.expovariate(20)
        prompt = draw.randint(1, longest)
        prefix = draw.choice(["", "a", "b"]) if prompt > shared else ""
        outputs = draw.randint(1, min(draw.choice([4, 60]), context - prompt))
        request = WorkloadRequest(at, prompt, outputs, prefix, shared if prefix else 0)
        if unfinished and draw.random() < 0.3:
            before = unfinished.pop(draw.randrange(len(unfinished)))
            so_far = requests[before].prompt + requests[before].outputs
            if so_far + 2 < context:
                prompt = draw.randint(so_far + 1, context - 1)
                outputs = draw.randint(1, min(60, context - prompt))
                request = WorkloadRequest(0.0, prompt, outputs, after=before, think=draw.choice([0.0, 0.3]))
        requests.append(request)
        unfinished.append(index)
    kind = draw.choice(list(SAMPLING_OPTIONS))
    concurrency = draw.randint(1, 40) if closed else 0
    return Workload("random", tuple(requests), concurrency, kind, seed=draw.randrange(1000))


def check(seed: int) -> None:
    """Runs the case of a seed and checks it; raises AssertionError."""
    case = random_case(seed)
    with VirtualClock() as clock:
        space = KeptLogs(clock)
        cluster = Cluster(
            space, case.cost, case.shape, DrawnSpeed(STEADY, 0), tiers=case.tiers, **case.options
        )
        with cluster.running():
            case.cost.forget()
            clients = Clients(
                clock, space, KEYS, case.workload, max_queue=1000, gateway_seconds=case.gateway_seconds
            )
            checks = clock.start_task("checks", _check_ledger(cluster, case.checks))
            clock.run(clients.run())
            while cluster.core.stats().steps_in_flight:
                clock.sleep(0.05)
            checks.cancel()
            _check_end(cluster)
            late_rows = cluster.core.stats().late_rows
    _check_requests(case, clients, space)
    _check_work(case, clients, space, late_rows)


async def _check_ledger(cluster: Cluster, waits: tuple[float, ...]) -> None:
    for seconds in waits:
        await asyncio.sleep(seconds)
        assert cluster.core.check_integrity() == []
        assert cluster.core.stats().blocks_free >= 0


def _check_end(cluster: Cluster) -> None:
    stats = cluster.core.stats()
    assert cluster.core.check_integrity() == []
    assert (stats.waiting, stats.running) == (0, 0)
    assert stats.slots_free == stats.slots_total
    assert stats.blocks_free == stats.blocks_total
    assert cluster.space.get(KEYS.waiting) == b"0"
    assert cluster.kv.changes[-1][1] == 0
    assert cluster.kv.peak <= stats.blocks_total


def _check_requests(case: Case, clients: Clients, space: KeptLogs) -> None:
    """Each request ends once, by its length, with as many tokens as it asked for, counted row by row."""
    names: dict[int, str] = {}
    tokens: dict[str, set[int]] = {}  # numbers of the tokens of each, whatever occupancy they are of
    position: Counter[int] = Counter()
    ends: Counter[str] = Counter()
    for result in space.results:
        for admitted in result.admitted:
            names[admitted.incarnation] = admitted.request_id
            position[admitted.incarnation] = admitted.num_outputs
        for _, incarnation, _, finish in zip(*rows_of(result), strict=True):
            name = names[incarnation]
            tokens.setdefault(name, set()).add(position[incarnation])
            position[incarnation] += 1
            assert not ends[name]
            if finish:
                assert finish == Finish.LENGTH
                ends[name] += 1
        assert not result.ended
    asked = {f"r{index}": request.outputs for index, request in enumerate(case.workload.requests)}
    found = {name.partition("@")[0]: numbers for name, numbers in tokens.items()}
    assert found == {name: set(range(count)) for name, count in asked.items()}
    assert len(ends) == len(asked)
    for times, request in zip(clients.times, case.workload.requests, strict=True):
        assert times.error == ""
        assert times.tokens == request.outputs
        assert times.sent < times.first <= times.ended
        if request.after is not None:
            assert times.sent == pytest.approx(clients.times[request.after].ended + request.think)
        elif not case.workload.concurrency:
            assert times.sent == pytest.approx(request.at)


def _check_work(case: Case, clients: Clients, space: KeptLogs, late_rows: int) -> None:
    """What the device computed is what the plans asked for, and takes as long as the cost model says."""
    totals, works = clients.sums.totals, case.cost.works
    steps = len(space.results)
    assert totals.t3 == pytest.approx(case.cost.forward + totals.kv_wait, abs=steps * NANOSECOND)
    assert totals.fetched_tokens.total() <= totals.cached_tokens
    assert totals.t4 == pytest.approx(case.cost.sampling, abs=steps * NANOSECOND)
    assert sum(work.decodes for work in works) == sum(result.decodes for result in space.results)
    assert sum(work.prefill for work in works) == sum(result.prefill_tokens for result in space.results)
    rows = sum(len(result.finishes) + result.wasted_rows for result in space.results)
    assert sum(work.samples for work in works) == rows
    kinds = Counter(
        {kind: sum(getattr(work, kind) for work in works) for kind in ("greedy", "drawn", "penalized")}
    )
    assert kinds[case.workload.sampling] == rows  # no request has another kind
    outputs = sum(request.outputs for request in case.workload.requests)
    assert sum(len(result.finishes) for result in space.results) == outputs + late_rows
    assert totals.wasted_rows == 0  # ends by length are predicted
    _check_prefill(case, space, works)
    first, last = space.results[0].timing, space.results[totals.steps - 1].timing
    spent = totals.t3 + totals.t4 + totals.visible + totals.idle
    assert spent == pytest.approx((last.sampling_end - first.forward_begin) * NANOSECOND)


def _check_prefill(case: Case, space: KeptLogs, works: list[StepWork]) -> None:
    """Chunks cover each prompt from its cached tokens on, once an occupancy; a preemption may cut them off.

    Pairs and context are counted again, token by token.
    """
    length: dict[int, int] = {}  # by slot
    computed: dict[int, int] = {}
    decoding: set[int] = set()
    pairs = context = prefill = least = 0
    admitted: set[str] = set()
    for plan in space.plans:
        decoding -= {*plan.released, *plan.paused}
        decoding |= set(plan.resumed)
        for admission in plan.admissions:
            length[admission.slot] = len(admission.tokens)
            computed[admission.slot] = admission.num_cached
            assert admission.num_cached % BLOCK_SIZE == 0
            if admission.request_id not in admitted:
                admitted.add(admission.request_id)
                least += len(admission.tokens) - admission.num_cached
        for slot in decoding:
            computed[slot] += 1
            context += computed[slot]
        for chunk in plan.chunks:
            assert chunk.start == computed[chunk.slot]
            pairs += sum(range(chunk.start + 1, chunk.start + chunk.count + 1))
            prefill += chunk.count
            computed[chunk.slot] += chunk.count
            assert computed[chunk.slot] <= length[chunk.slot]
            if computed[chunk.slot] == length[chunk.slot]:
                decoding.add(chunk.slot)
    assert pairs == sum(work.prefill_pairs for work in works)
    assert context == sum(work.context for work in works)
    assert prefill == sum(work.prefill for work in works)
    if len(admitted) == sum(len(plan.admissions) for plan in space.plans):  # no preemption
        assert prefill == least


if __name__ == "__main__":
    count = int(sys.argv[1])
    for number in range(count):
        try:
            check(number)
        except BaseException as error:
            error.add_note(f"seed {number}")
            raise
    print(f"{count} random workloads: every invariant holds")
