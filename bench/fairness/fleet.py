"""A core with simulated groups, driven event by event in virtual time."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from albireo.contract.plan import BLOCK_SIZE, GroupShape, Plan, SamplingParams, Submission, blocks_for
from bench.plan_cost import StandIn
from scheduler_svc.core import GroupCore, Limits, SchedulerCore, Speed

PROMPT, OUTPUTS = (256, 768), (64, 192)  # tokens, uniform
SLOTS = 64
STEP_SECONDS, TOKEN_SECONDS = 0.020, 40e-6  # of a step, and of each prompt token in it
LONGEST = PROMPT[1] + OUTPUTS[1] + BLOCK_SIZE
QUEUE_PLACES = 512  # that a tenant may fill
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
        self._worker = StandIn(random.Random(seed))
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
        self._seed = seed
        self._random: dict[str, random.Random] = {}  # by tenant, so that none changes what another draws
        self._floods: dict[str, float] = {}  # requests a second by tenant
        self._flooded_until = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def poisson(self, tenant: str, rate: float) -> None:
        """From now on ``rate`` requests a second."""
        rng = self._random_of(tenant)

        def arrive() -> None:
            self._after(rng.expovariate(rate), arrive)
            self.submit(tenant)

        self._after(rng.expovariate(rate), arrive)

    def flood(self, tenant: str, rate: float) -> None:
        """From now on ``rate`` requests a second, of which those above QUEUE_PLACES waiting ones are refused.
        They come in bulk, just before each of the scheduler's turns."""
        self._floods[tenant] = rate
        self._flooded_until = self.now

    def submit(self, tenant: str, priority: int = 0) -> None:
        """A request arrives now."""
        name = f"r{len(self.requests)}"
        self.requests[name] = Timed(tenant, priority, self.now)
        self.waiting[tenant] += 1
        rng = self._random_of(tenant)
        prompt = tuple(rng.choices(range(1, 32_000), k=rng.randint(*PROMPT)))
        sampling = SamplingParams(max_tokens=rng.randint(*OUTPUTS), seed=0)
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

    def _random_of(self, tenant: str) -> random.Random:
        return self._random.setdefault(tenant, random.Random(f"{self._seed} {tenant}"))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, act))

    def _turn(self, refill: Callable[[], None]) -> None:
        refill()
        for tenant, rate in self._floods.items():
            come = int(rate * (self.now - self._flooded_until) + self._random_of(tenant).random())
            for _ in range(min(come, QUEUE_PLACES - self.waiting[tenant])):
                self.submit(tenant)
        self._flooded_until = self.now
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
