"""Fair share between tenants in virtual time: python -m bench.fairness [--groups N ...] [--seconds S] [--json]

The scheduler's core is the real one: its queue, placement and plans. The groups only take the time of a step
and answer with random tokens. No service and no store runs: the share of the queue that a tenant may fill is
checked here, as the store checks it.

- **flood**: one tenant offers 100 times its share. The other's time to first token, against half of the
  groups to itself.
- **weights**: three tenants of weights 1, 2 and 4, each of which always has requests waiting. Their shares of
  the tokens.
- **priorities**: a tenant always has requests of the earliest priority waiting. How long those of the latest
  one wait.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from albireo.contract.plan import BLOCK_SIZE, GroupShape, Plan, SamplingParams, Submission, blocks_for
from bench.machine import machine
from bench.plan_cost import StandIn
from scheduler_svc.core import GroupCore, Limits, SchedulerCore, Speed

PROMPT, OUTPUTS = (256, 768), (64, 192)  # tokens, uniform
SLOTS = 64
STEP_SECONDS, TOKEN_SECONDS = 0.020, 40e-6  # of a step, and of each prompt token in it
LONGEST = PROMPT[1] + OUTPUTS[1] + BLOCK_SIZE
QUEUE_PLACES = 512  # that a tenant may fill
WARM_UP_SECONDS = 10.0
LOAD = 0.7  # of half of the groups, by the tenant that does not flood
FLOOD = 100
EARLIEST, LATEST = -5, 5
PRIORITY_SECONDS = 1.0


@dataclass(slots=True)
class Timed:
    """One request, in virtual seconds."""

    tenant: str
    priority: int
    sent: float
    first: float | None = None  # when its first token had settled


class SimulatedGroup:
    """Runs plans one after the other, each in its time."""

    def __init__(self, core: GroupCore, seed: int) -> None:
        self.core = core
        self.plans: deque[Plan] = deque()  # published and not run
        self.running: Plan | None = None
        self._worker = StandIn(random.Random(seed), stop_share=0.0)
        self._names: dict[int, str] = {}  # by incarnation

    def begin(self) -> float | None:
        """Takes the next plan, if it is free and there is one; returns the seconds of the step."""
        if self.running is not None or not self.plans:
            return None
        self.running = self.plans.popleft()
        return STEP_SECONDS + TOKEN_SECONDS * sum(chunk.count for chunk in self.running.chunks)

    def end(self, seconds: float) -> list[str]:
        """The step has run for ``seconds``: settles its result, and returns the request of each token."""
        assert self.running is not None
        self._names.update(
            (admission.incarnation, admission.request_id) for admission in self.running.admissions
        )
        result, self.running = self._worker.run(self.running), None
        self.core.settle(result, seconds)
        return [self._names[number] for number in result.incarnations]


class Fleet:
    """A core with equal groups, driven event by event."""

    def __init__(self, groups: int, weights: Mapping[str, float] | None = None, *, seed: int = 1) -> None:
        limits = Limits(max_num_seqs=SLOTS, priority_seconds=PRIORITY_SECONDS)
        shape = GroupShape(SLOTS * blocks_for(LONGEST), SLOTS, LONGEST)
        self.now = 0.0
        self.requests: dict[str, Timed] = {}
        self.waiting: Counter[str] = Counter()  # requests by tenant that have had no slot
        self.tokens: Counter[str] = Counter()  # outputs by tenant
        self._core = SchedulerCore(limits, epoch=1, salt=b"bench")
        self._core.set_weights(weights or {})
        self._groups = []
        for number in range(groups):
            speed = Speed(step_seconds=STEP_SECONDS, prefill_token_seconds=TOKEN_SECONDS)
            self._groups.append(SimulatedGroup(self._core.join(f"g{number}", shape, speed=speed), number))
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def poisson(self, tenant: str, rate: float) -> None:
        """From now on ``rate`` requests a second; those above QUEUE_PLACES waiting ones are refused."""

        def arrive() -> None:
            self._after(self._rng.expovariate(rate), arrive)
            if self.waiting[tenant] < QUEUE_PLACES:
                self.submit(tenant)

        self._after(self._rng.expovariate(rate), arrive)

    def submit(self, tenant: str, priority: int = 0) -> None:
        """A request arrives now."""
        name = f"r{len(self.requests)}"
        self.requests[name] = Timed(tenant, priority, self.now)
        self.waiting[tenant] += 1
        prompt = tuple(self._rng.choices(range(1, 32_000), k=self._rng.randint(*PROMPT)))
        sampling = SamplingParams(max_tokens=self._rng.randint(*OUTPUTS), seed=0)
        self._core.submit(Submission(name, prompt, sampling, priority=priority, tenant=tenant), self.now)

    def run(self, seconds: float, refill: Callable[[], None] = lambda: None) -> None:
        """``refill`` is called before each of the scheduler's turns, for closed loops."""
        until = self.now + seconds
        self._turn(refill)
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
            self._turn(refill)
        self.now = until

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, act))

    def _turn(self, refill: Callable[[], None]) -> None:
        refill()
        self._core.place()
        for group in self._groups:
            while group.core.touched and (plan := group.core.plan(self.now)) is not None:
                group.plans.append(plan)
                self.waiting.subtract(
                    self.requests[admission.request_id].tenant
                    for admission in plan.admissions
                    if not admission.num_outputs
                )
            if (seconds := group.begin()) is not None:
                self._after(seconds, lambda group=group, seconds=seconds: self._end(group, seconds))  # type: ignore[misc]

    def _end(self, group: SimulatedGroup, seconds: float) -> None:
        for name in group.end(seconds):
            timed = self.requests[name]
            self.tokens[timed.tenant] += 1
            if timed.first is None:
                timed.first = self.now


@dataclass(frozen=True, slots=True)
class Flood:
    """Times to first token of the tenant that does not flood, in seconds."""

    groups: int
    requests: int
    alone_p50: float  # with half of the groups to itself
    alone_p99: float
    p50: float  # with all groups, and the other tenant
    p99: float

    @property
    def rise(self) -> float:
        """Of the P99."""
        return self.p99 / self.alone_p99 - 1


def capacity(groups: int) -> float:
    """Requests a second that the slots carry, if each step has as many tokens of prompts as come in."""
    tokens = sum(OUTPUTS) / 2
    prefill = SLOTS / tokens * sum(PROMPT) / 2  # tokens of a step
    return groups * SLOTS / (tokens * (STEP_SECONDS + TOKEN_SECONDS * prefill))


def flood(groups: int, seconds: float) -> Flood:
    """Poisson arrivals; the same requests of the tenant alone and together, as drawn from one seed."""
    rate = LOAD * capacity(groups) / 2
    alone = _times(Fleet(groups // 2), rate, 0.0, seconds)
    together = _times(Fleet(groups), rate, FLOOD * capacity(groups) / 2, seconds)
    quantiles = [_quantile(times, share) for times in (alone, together) for share in (50, 99)]
    return Flood(groups, len(together), *quantiles)


def _times(fleet: Fleet, rate: float, flood_rate: float, seconds: float) -> list[float]:
    if flood_rate:
        fleet.poisson("flood", flood_rate)
    fleet.poisson("quiet", rate)
    fleet.run(WARM_UP_SECONDS)
    begin = fleet.now
    fleet.run(seconds)
    end = fleet.now
    fleet.run(WARM_UP_SECONDS)
    sent = [
        timed for timed in fleet.requests.values() if timed.tenant == "quiet" and begin <= timed.sent < end
    ]
    return [(timed.first if timed.first is not None else fleet.now) - timed.sent for timed in sent]


def _quantile(values: Sequence[float], share: int) -> float:
    return statistics.quantiles(values, n=100)[share - 1]


@dataclass(frozen=True, slots=True)
class Weights:
    """Of one tenant."""

    weight: float
    tokens: int  # of outputs
    share: float  # of those of all

    deviation: float  # of the share from that of the weight, relative


def weights(groups: int, seconds: float, given: Sequence[float] = (1.0, 2.0, 4.0)) -> list[Weights]:
    """Each tenant always has 50 requests waiting."""
    by_tenant = {f"weight-{weight:g}": weight for weight in given}
    fleet = Fleet(groups, by_tenant)

    def refill() -> None:
        for tenant in by_tenant:
            for _ in range(50 - fleet.waiting[tenant]):
                fleet.submit(tenant)

    fleet.run(WARM_UP_SECONDS, refill)
    before = Counter(fleet.tokens)
    fleet.run(seconds, refill)
    tokens = fleet.tokens - before
    found = []
    for tenant, weight in by_tenant.items():
        share = tokens[tenant] / tokens.total()
        found.append(Weights(weight, tokens[tenant], share, share * sum(given) / weight - 1))
    return found


@dataclass(frozen=True, slots=True)
class Priorities:
    """Longest waits for the first token by requests of one tenant, in seconds."""

    earliest: float
    latest: float
    requests: int  # of the latest priority


def priorities(groups: int, seconds: float) -> Priorities:
    """Of 100 requests that always wait 99 have the earliest priority; every hundredth has the latest."""
    fleet = Fleet(groups)

    def refill() -> None:
        for _ in range(100 - fleet.waiting["one"]):
            fleet.submit("one", LATEST if len(fleet.requests) % 100 == 0 else EARLIEST)

    fleet.run(seconds, refill)
    waits: dict[int, list[float]] = {EARLIEST: [], LATEST: []}
    for timed in fleet.requests.values():
        waits[timed.priority].append((fleet.now if timed.first is None else timed.first) - timed.sent)
    return Priorities(max(waits[EARLIEST]), max(waits[LATEST]), len(waits[LATEST]))


def _print(floods: Sequence[Flood], shares: Sequence[Weights], waits: Priorities) -> None:
    console = Console(stderr=True)
    kind = f"simulated groups of {SLOTS} slots; {machine()}"
    view = Table(box=SIMPLE_HEAD, pad_edge=False, title="TTFT while another tenant floods, ms", caption=kind)
    for name in ("groups", "requests", "half alone, P50", "P99", "with the flood, P50", "P99", "rise of P99"):
        view.add_column(name, justify="right")
    for found in floods:
        times = (found.alone_p50, found.alone_p99, found.p50, found.p99)
        view.add_row(
            str(found.groups),
            str(found.requests),
            *(f"{1e3 * x:.0f}" for x in times),
            f"{100 * found.rise:+.0f} %",
        )
    console.print(view)
    view = Table(box=SIMPLE_HEAD, pad_edge=False, title="Tokens under saturation", caption=kind)
    for name in ("weight", "tokens", "share", "from its weight"):
        view.add_column(name, justify="right")
    for one in shares:
        view.add_row(f"{one.weight:g}", str(one.tokens), f"{one.share:.4f}", f"{100 * one.deviation:+.1f} %")
    console.print(view)
    console.print(
        f"Longest wait where requests of priority {EARLIEST} always wait: {waits.earliest:.1f} s at "
        f"{EARLIEST}, {waits.latest:.1f} s at {LATEST} ({waits.requests} requests; {PRIORITY_SECONDS:g} s a level)"
    )


def main() -> None:
    """Runs all three, and prints them."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness")
    parser.add_argument(
        "--groups", type=int, nargs="+", default=[4, 8, 16], help="even numbers, for the flood"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="virtual seconds that are measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    floods = [flood(groups, options.seconds) for groups in options.groups]
    shares = weights(4, options.seconds)
    waits = priorities(2, options.seconds)
    _print(floods, shares, waits)
    if options.json:
        found = {
            "machine": machine(),
            "flood": [asdict(one) | {"rise": one.rise} for one in floods],
            "weights": [asdict(one) for one in shares],
            "priorities": asdict(waits),
        }
        json.dump(found, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
