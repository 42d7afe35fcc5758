"""What is measured of a fleet: the leader's CPU time, unequal groups, cached prefixes, time in the queue."""

from __future__ import annotations

import heapq
import random
import statistics
from dataclasses import dataclass

import numpy as np

from albireo.contract.plan import BLOCK_SIZE, DEFAULT_TENANT, GroupShape, blocks_for
from bench.fleet.group import Pace
from bench.fleet.load import Draw
from bench.fleet.run import Fleet, Member, running_fleet
from bench.fleet.store_cost import store_cost

VOCAB = 32_000
STEP_SECONDS = 0.020
PROMPT, OUTPUTS = (64, 192), (64, 192)  # tokens, uniform
BATCH = 128
WARM_UP_SECONDS = 4.0
ROOM = sum((PROMPT[1], OUTPUTS[1], BLOCK_SIZE))


def uniform(rng: random.Random) -> tuple[tuple[int, ...], int, str]:
    """A prompt of its own."""
    prompt = tuple(rng.randrange(VOCAB) for _ in range(rng.randint(*PROMPT)))
    return prompt, rng.randint(*OUTPUTS), DEFAULT_TENANT


def member(step: float = STEP_SECONDS, *, slots: int = BATCH) -> Member:
    """A group with blocks for all its slots, whose steps take as long with any number of rows."""
    return Member(GroupShape(slots * blocks_for(ROOM), slots, ROOM), Pace(step, 0.0))


@dataclass(frozen=True, slots=True)
class LeaderCost:
    """Of one number of groups, all slots in use. Microseconds are CPU time of the scheduler for a step of one
    group."""

    groups: int
    steps: int
    rows: float  # mean of a step
    microseconds: float  # without the store
    redis: float  # what the calls to Redis take in addition
    groups_at_most: float  # with which one core is used up, at this time for a step


SLICES = 5
LEAST_SECONDS = 3.0


def leader_cost(groups: int, seconds: float) -> LeaderCost:
    """A closed loop keeps all slots in use, with as many requests waiting as one group has slots. ``seconds``
    are those of all groups together, LEAST_SECONDS at least of each. The time is the median of SLICES."""
    slices, least = [], LEAST_SECONDS / SLICES
    with running_fleet([member()] * groups, uniform) as fleet:
        fleet.load.run_closed(BATCH * (groups + 1))
        fleet.clock.sleep(WARM_UP_SECONDS)
        first, rows = _steps(fleet), _rows(fleet)
        for _ in range(SLICES):
            used, steps = fleet.leader.seconds, _steps(fleet)
            fleet.clock.sleep(max(least, seconds / groups / SLICES))
            slices.append((fleet.leader.seconds - used) / (_steps(fleet) - steps))
        steps, rows = _steps(fleet) - first, _rows(fleet) - rows
    core, (redis, _) = statistics.median(slices), store_cost(groups)
    return LeaderCost(
        groups,
        steps,
        round(rows / steps, 1),
        round(core * 1e6, 1),
        round(redis * 1e6, 1),
        round(STEP_SECONDS / (core + redis), 1),
    )


@dataclass(frozen=True, slots=True)
class Speeds:
    """Tokens a second of groups of different speed."""

    alone: tuple[float, ...]
    together: tuple[float, ...]

    @property
    def share(self) -> float:
        """Of the sum of all alone."""
        return sum(self.together) / sum(self.alone)


def unequal_speeds(seconds: float) -> Speeds:
    """Three groups whose steps take 40, 20 and 10 ms, saturated: each alone, then all under one scheduler."""
    members = [member(step) for step in (0.040, 0.020, 0.010)]
    alone = [_saturated([one], seconds)[0] for one in members]
    return Speeds(tuple(alone), tuple(_saturated(members, seconds)))


def _saturated(members: list[Member], seconds: float) -> list[float]:
    with running_fleet(members, uniform) as fleet:
        fleet.load.run_closed(BATCH * (len(members) + 1))
        fleet.clock.sleep(WARM_UP_SECONDS)
        before = [group.rows for group in fleet.groups]
        fleet.clock.sleep(seconds)
        return [(group.rows - rows) / seconds for group, rows in zip(fleet.groups, before, strict=True)]


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Of requests that begin with one of 20 prefixes."""

    cached: float  # share of all prompt tokens, three groups
    cached_by_one: float  # one group with the memory and the slots of all three
    rows: tuple[int, ...]  # of each of the three

    @property
    def spread(self) -> float:
        """Most rows of a group less the fewest, over the mean."""
        return (max(self.rows) - min(self.rows)) / (sum(self.rows) / len(self.rows))


PREFIXES, PREFIX_TOKENS, SUFFIX_TOKENS, PREFIX_OUTPUTS = 20, 512, 32, 64
PREFIX_SLOTS, PREFIX_BLOCKS = 32, 400
PREFIX_LOAD = 0.7


def prefix_load(seconds: float) -> Prefixes:
    """Three equal groups, none of which has memory for all prefixes and its slots. Zipf's law with exponent
    1; Poisson arrivals at 70 % of what the slots carry."""
    rate = PREFIX_LOAD * 3 * PREFIX_SLOTS / (STEP_SECONDS * PREFIX_OUTPUTS)
    three, rows = _prefixes(3, 1, rate, seconds)
    one, _ = _prefixes(1, 3, rate, seconds)
    return Prefixes(three, one, rows)


def _prefixes(groups: int, size: int, rate: float, seconds: float) -> tuple[float, tuple[int, ...]]:
    length = PREFIX_TOKENS + SUFFIX_TOKENS + PREFIX_OUTPUTS + BLOCK_SIZE
    shape = GroupShape(size * PREFIX_BLOCKS, size * PREFIX_SLOTS, length)
    members = [Member(shape, Pace(STEP_SECONDS, 20e-6 / size))] * groups
    with running_fleet(members, zipf_prefixes()) as fleet:
        fleet.load.run_open(rate, WARM_UP_SECONDS + seconds)
        fleet.clock.sleep(WARM_UP_SECONDS)
        begin, before = fleet.clock.now(), [group.rows for group in fleet.groups]
        fleet.clock.sleep(seconds)
        sent = [timed for timed in fleet.load.between(begin, fleet.clock.now()) if timed.first]
        rows = tuple(group.rows - count for group, count in zip(fleet.groups, before, strict=True))
        return sum(t.cached for t in sent) / sum(t.prompt for t in sent), rows


def zipf_prefixes() -> Draw:
    """Draws one of PREFIXES by Zipf's law, and a suffix of its own."""
    fixed = random.Random(0)
    prefixes = [tuple(fixed.randrange(VOCAB) for _ in range(PREFIX_TOKENS)) for _ in range(PREFIXES)]
    weights = [1 / rank for rank in range(1, PREFIXES + 1)]

    def draw(rng: random.Random) -> tuple[tuple[int, ...], int, str]:
        [prefix] = rng.choices(prefixes, weights)
        suffix = tuple(rng.randrange(VOCAB) for _ in range(SUFFIX_TOKENS))
        return prefix + suffix, PREFIX_OUTPUTS, DEFAULT_TENANT

    return draw


@dataclass(frozen=True, slots=True)
class Waiting:
    """Seconds until the first token, at one load."""

    groups: int
    load: float  # share of what the slots carry
    requests: int
    p50: float
    p99: float
    ideal_p50: float  # of one queue in front of all slots
    ideal_p99: float


def queue_time(groups: int, load: float, seconds: float, *, slots: int = BATCH) -> Waiting:
    """Poisson arrivals. The ideal is one M/G/k queue whose servers are all slots: a request waits for the
    first free one and occupies it for one step of each of its tokens."""
    mean = STEP_SECONDS * sum(OUTPUTS) / 2
    rate = load * groups * slots / mean
    with running_fleet([member(slots=slots)] * groups, uniform) as fleet:
        fleet.load.run_open(rate, WARM_UP_SECONDS + seconds)
        fleet.clock.sleep(WARM_UP_SECONDS)
        begin = fleet.clock.now()
        fleet.clock.sleep(seconds)
        end = fleet.clock.now()
        fleet.clock.sleep(2 * mean)
        ours = [timed.first - timed.sent for timed in fleet.load.between(begin, end)]
        arrivals = sorted(timed.sent for timed in fleet.load.requests.values())
    ideal = [wait + STEP_SECONDS for at, wait in _ideal_waits(arrivals, groups * slots) if begin <= at < end]
    p50, p99 = np.percentile(ours, [50, 99]).tolist()
    ideal_p50, ideal_p99 = np.percentile(ideal, [50, 99]).tolist()
    return Waiting(groups, load, len(ours), p50, p99, ideal_p50, ideal_p99)


def _ideal_waits(arrivals: list[float], servers: int) -> list[tuple[float, float]]:
    """Arrival and wait of each request in a queue with one line and ``servers`` servers."""
    rng = random.Random(7)
    free = [0.0] * servers
    waits = []
    for at in arrivals:
        begin = max(at, heapq.heappop(free))
        heapq.heappush(free, begin + STEP_SECONDS * rng.randint(*OUTPUTS))
        waits.append((at, begin - at))
    return waits


def _steps(fleet: Fleet) -> int:
    return sum(group.steps for group in fleet.groups)


def _rows(fleet: Fleet) -> int:
    return sum(group.rows for group in fleet.groups)
