"""What is measured: a flood, weights, priorities."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.fairness.fleet import OUTPUTS, PROMPT, SLOTS, STEP_SECONDS, TOKEN_SECONDS, Fleet

WARM_UP_SECONDS = 10.0
LOADS = (0.5, 0.7, 0.9)  # of half of the groups, by the tenant that does not flood
FLOOD = 100
EARLIEST, LATEST = -5, 5


@dataclass(frozen=True, slots=True)
class Flood:
    """Times to first token of the tenant that does not flood, in seconds."""

    groups: int
    load: float
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


def flood(groups: int, load: float, seconds: float, *, seed: int = 1) -> Flood:
    """Poisson arrivals of ``load``, a share of what half of the groups carry; the same requests of the tenant
    alone and together, as drawn from one seed."""
    rate = load * capacity(groups) / 2
    alone = _times(Fleet(groups // 2, seed=seed), rate, 0.0, seconds)
    together = _times(Fleet(groups, seed=seed), rate, FLOOD * capacity(groups) / 2, seconds)
    quantiles = [_quantile(times, share) for times in (alone, together) for share in (50, 99)]
    return Flood(groups, load, len(together), *quantiles)


def _times(fleet: Fleet, rate: float, flood_rate: float, seconds: float) -> list[float]:
    if flood_rate:
        fleet.flood("flood", flood_rate)
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


def weights(
    groups: int, seconds: float, given: Sequence[float] = (1.0, 2.0, 4.0), *, seed: int = 1
) -> list[Weights]:
    """Each tenant always has 50 requests waiting."""
    by_tenant = {f"weight-{weight:g}": weight for weight in given}
    fleet = Fleet(groups, by_tenant, seed=seed)

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


def priorities(groups: int, seconds: float, *, seed: int = 1) -> Priorities:
    """Of 100 requests that always wait 99 have the earliest priority; every hundredth has the latest."""
    fleet = Fleet(groups, seed=seed)

    def refill() -> None:
        for _ in range(100 - fleet.waiting["one"]):
            fleet.submit("one", LATEST if len(fleet.requests) % 100 == 0 else EARLIEST)

    fleet.run(seconds, refill)
    waits: dict[int, list[float]] = {EARLIEST: [], LATEST: []}
    for timed in fleet.requests.values():
        waits[timed.priority].append((fleet.now if timed.first is None else timed.first) - timed.sent)
    return Priorities(max(waits[EARLIEST]), max(waits[LATEST]), len(waits[LATEST]))
