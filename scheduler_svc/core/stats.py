"""The counts of the core, for metrics and for the load that is published.

The ledger adds to :class:`Counters`; the core makes a :class:`CoreStats` for the scheduler's telemetry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from scheduler_svc.core.request import Request

MAX_TENANTS = 32
OTHER_TENANTS = "other"


def by_tenant(requests: Iterable[Request]) -> dict[str, int]:
    """How many requests each tenant has, those with the most by name."""
    counts = Counter(request.submission.tenant for request in requests)
    found = dict(counts.most_common(MAX_TENANTS))
    if len(counts) > MAX_TENANTS:
        found[OTHER_TENANTS] = found.get(OTHER_TENANTS, 0) + counts.total() - sum(found.values())
    return found


@dataclass(slots=True)
class Counters:
    """Totals since the epoch opened, written by the ledger. Token counts are of first admissions."""

    preemptions: int = 0
    prompt_tokens: int = 0
    prefix_hit_tokens: int = 0
    output_tokens: int = 0
    wasted_rows: int = 0
    late_rows: int = 0
    departures: int = 0  # of requests from the waiting state, since they were last taken


@dataclass(frozen=True, slots=True)
class CoreStats:
    """A snapshot of the core: gauges first, then totals since the epoch opened."""

    step: int  # the last one published; 0 = none yet
    steps_in_flight: int
    waiting: int  # for a slot, held branches included
    waiting_by_tenant: dict[str, int]  # of these; tenants beyond MAX_TENANTS are OTHER_TENANTS together
    running: int  # requests that hold a slot and go on
    slots_free: int
    slots_total: int
    blocks_free: int  # cached ones without an owner included
    blocks_cached: int  # that a prefix can hit, with or without an owner
    blocks_total: int
    preemptions: int
    prompt_tokens: int  # of requests as they were first admitted
    prefix_hit_tokens: int  # of these, not computed because the prefix cache or another branch had them
    output_tokens: int  # settled ones
    wasted_rows: int  # planned after a row that turned out to be the last one
    late_rows: int  # results of an occupancy whose request had ended or was preempted, dropped
