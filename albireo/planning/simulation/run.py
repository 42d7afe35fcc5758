"""Simulates one workload on one group: the entry for commands, the planner and benchmarks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from albireo.contract.plan import GroupShape
from albireo.planning.result import SimulationResult
from albireo.planning.simulation.clients import Clients
from albireo.planning.simulation.cluster import KEYS, Cluster
from albireo.planning.simulation.drawn_speed import DrawnSpeed
from albireo.planning.workload import Workload
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from worker_svc.cost.interface import CostModel
from worker_svc.cost.tiers import NO_TIERS, DescribedTiers
from worker_svc.cost.work import StepWork
from worker_svc.sampling.layout import SamplingMode

NO_OPTIONS: Mapping[str, object] = {}
MAX_QUEUE = 1024
"""Default of the gateways' ``--max-queue``."""
GATEWAY_SECONDS = 1e-3
"""Of a gateway's CPU until a request is in the inbox: half of the 2 ms that a Xeon core took for a whole
request of 100 prompt tokens and one output token. Without it, requests that end in the same step would be
admitted in the same step ever after; in a real stack the first one's plan is published before the next has
come."""

MAX_BLOCKS = 1 << 24
"""KV blocks: what slots and prefixes need is far less, and each takes memory of the simulation."""
MAX_STEP_SECONDS = 3600.0
MAX_ARRIVAL_SECONDS = 7 * 86_400.0
"""Of the last request. The services do something every now and then also where there are no requests."""


def simulate(
    workload: Workload,
    cost: CostModel,
    *,
    num_blocks: int,
    max_seqs: int,
    max_model_len: int,
    tiers: DescribedTiers = NO_TIERS,
    synchronous: bool = False,
    sampling: SamplingMode = "auto",
    scheduler: Mapping[str, object] = NO_OPTIONS,
    max_queue: int = MAX_QUEUE,
    gateway_seconds: float = GATEWAY_SECONDS,
    on_progress: Callable[[int, int], None] | None = None,
) -> SimulationResult:
    """Runs ``workload`` on the group that ``cost`` is of, in virtual time, until its last request has ended.

    ``num_blocks``: KV blocks of each rank; ``max_seqs``: slots; ``max_model_len``: most tokens of a request,
    at most as many as all blocks hold, or some of the blocks and a tier. ``tiers``: of KV below the blocks.
    ``synchronous`` means sampling on rank 0, as in the real stack. ``scheduler``: options of
    :class:`SchedulerSettings`; by default as many slots as the group. ``max_queue``: most requests that wait;
    further ones are refused. ``gateway_seconds``: how long the one gateway takes for each request.
    ``on_progress`` gets the number of requests that ended, and of all.

    The same arguments give the same result, but for ``cpu_seconds``; ``workload.seed`` draws the speed of a
    device that varies. Raises ValueError in one line.
    """
    began = time.process_time()
    longest = min(max_model_len, tiers.most_tokens(num_blocks))
    shape = GroupShape(num_blocks, max_seqs, longest, tiers.shapes, tiers.layers)
    _check(workload, cost, shape)
    with _frozen_heap(), VirtualClock() as clock:
        cluster = Cluster(
            Keyspace(clock),
            cost,
            shape,
            DrawnSpeed(cost.variation, workload.seed),
            synchronous=synchronous,
            sampling=sampling,
            scheduler=scheduler,
            tiers=tiers,
        )
        with cluster.running():
            clients = Clients(clock, cluster.space, KEYS, workload, max_queue, gateway_seconds, on_progress)
            clock.run(clients.run())
            result = _result(clients, cluster, shape)
    result.cpu_seconds = time.process_time() - began
    return result


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Meanwhile the garbage collector skips what exists now, all modules among it: to look at all of it
    every now and then takes a fifth of a simulation's time."""
    before = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not before:  # else the process has a frozen heap of its own
            gc.unfreeze()


def _result(clients: Clients, cluster: Cluster, shape: GroupShape) -> SimulationResult:
    """As of the end of the last request, which is now."""
    seconds, now, kv = clients.now(), cluster.clock.now(), cluster.kv
    totals = clients.sums.totals
    totals.kv_blocks_used = kv.block_seconds(now)
    totals.prefill_tokens += cluster.table.streamed_prefill
    totals.fetched_tokens.update(cluster.table.streamed_hits)
    return SimulationResult(
        requests=clients.times,
        totals=totals,
        seconds=seconds,
        preemptions=clients.preemptions,
        num_blocks=shape.num_blocks,
        peak_blocks=kv.peak,
        step_periods=clients.sums.periods,
        result_periods=clients.sums.result_periods,
        tiers=shape.tiers,
        kv_use=[(at - (now - seconds), used) for at, used in kv.changes],
    )


def _check(workload: Workload, cost: CostModel, shape: GroupShape) -> None:
    """Raises ValueError."""
    if min(shape.max_seqs, shape.max_model_len) < 1:
        raise ValueError(f"{shape.max_seqs} slots and {shape.num_blocks} KV blocks: both start at 1")
    if shape.num_blocks > MAX_BLOCKS:
        raise ValueError(f"{shape.num_blocks} KV blocks: a simulation takes at most {MAX_BLOCKS}")
    if workload.longest > shape.max_model_len:
        raise ValueError(
            f"the workload's longest request has {workload.longest} tokens, prompt and output; "
            f"the context takes {shape.max_model_len}"
        )
    for number, request in enumerate(workload.requests, 1):
        if request.prompt < 1 or request.outputs < 1:
            raise ValueError(f"request {number}: prompt and output have at least one token each")
        if not 0 <= request.prefix_tokens < request.prompt and request.prefix:
            raise ValueError(f"request {number}: the shared prefix must be shorter than the prompt")
        workload.own_tokens(number - 1)  # refuses a turn that adds nothing
    _check_durations(workload, cost, shape)


def _check_durations(workload: Workload, cost: CostModel, shape: GroupShape) -> None:
    """Times without sense would make a run without end. Raises ValueError."""
    earliest: list[float] = []  # time at which each request can be sent
    for request in workload.requests:
        begin = request.at if request.after is None else earliest[request.after]
        earliest.append(begin + request.think)
    last = max(earliest, default=0.0)
    if last > MAX_ARRIVAL_SECONDS:
        raise ValueError(
            f"the last request arrives after {last:.3g} s; "
            f"a simulation takes at most {MAX_ARRIVAL_SECONDS:.0f} s"
        )
    rows = shape.max_seqs
    work = StepWork(
        decodes=rows, context=rows * shape.max_model_len, prefill=1, prefill_pairs=1, penalized=rows
    )
    host = cost.host(work)
    seconds = cost.forward_seconds(work) + cost.sampling_seconds(work, parallel=False)
    seconds += host.t1 + host.t2 + host.t5
    if not seconds <= MAX_STEP_SECONDS:
        raise ValueError(
            f"a step of {rows} rows would take {seconds:.3g} s by the cost model {cost.name}; "
            f"a simulation takes at most {MAX_STEP_SECONDS:.0f} s"
        )
