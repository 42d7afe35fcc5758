"""The counts of the core, for metrics and for the load that is published.

The ledgers add to :class:`Counters`; the cores make :class:`GroupStats` and :class:`CoreStats` for the
scheduler's telemetry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from scheduler_svc.core.request import Phase, Request
from scheduler_svc.core.speed import Speed
from scheduler_svc.core.tier_stats import TierStats

if TYPE_CHECKING:
    from scheduler_svc.core.ledger import Ledger

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
    """Totals of one group since it joined, written by its ledger; or of those that have left. Counts of
    prompt tokens are of first admissions."""

    step: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    prefix_hit_tokens: int = 0
    output_tokens: int = 0
    wasted_rows: int = 0
    late_rows: int = 0

    def add(self, other: Counters) -> None:
        """Adds another group's totals."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True, slots=True)
class GroupStats:
    """A snapshot of one group: gauges first, then totals since it joined."""

    steps_in_flight: int
    running: int  # requests that hold a slot and go on
    placed: int  # requests that the next plan is to admit
    slots_free: int
    slots_total: int
    blocks_free: int  # cached ones without an owner included
    blocks_cached: int  # that a prefix can hit, with or without an owner
    blocks_total: int
    step_seconds: float  # of a step that only decodes, of late
    prefill_token_seconds: float  # that a token of a prompt adds to a step, of late
    step: int  # the last one published; 0 = none yet
    preemptions: int
    prompt_tokens: int  # of requests as they were first admitted
    prefix_hit_tokens: int  # of these, not computed because the prefix cache or another branch had them
    output_tokens: int  # settled ones
    wasted_rows: int  # planned after a row that turned out to be the last one
    late_rows: int  # results of an occupancy whose request had ended or was preempted, dropped
    tiers: tuple[TierStats, ...] = ()  # of KV below the blocks, the fastest first
    streamed: int = 0  # running requests whose first blocks are in frames of these
    streamed_blocks: int = 0  # of them


@dataclass(frozen=True, slots=True)
class CoreStats:
    """A snapshot of the core: gauges first, then totals since the epoch opened. All but the first three are
    sums of what the groups have, the totals of groups that have left included."""

    groups: int
    waiting: int  # for a slot, held branches and placed requests included
    waiting_by_tenant: dict[str, int]  # of these; tenants beyond MAX_TENANTS are OTHER_TENANTS together
    steps_in_flight: int
    running: int
    slots_free: int
    slots_total: int
    blocks_free: int
    blocks_cached: int
    blocks_total: int
    step: int  # steps published
    preemptions: int
    prompt_tokens: int
    prefix_hit_tokens: int
    output_tokens: int
    wasted_rows: int
    late_rows: int


def group_stats(ledger: Ledger, speed: Speed) -> GroupStats:
    """Those of one group."""
    counters = ledger.counters
    return GroupStats(
        steps_in_flight=len(ledger.in_flight),
        running=ledger.num_running,
        placed=len(ledger.pending.placed),
        slots_free=len(ledger.free_slots),
        slots_total=ledger.shape.max_seqs,
        blocks_free=ledger.pool.num_free,
        blocks_cached=ledger.pool.num_cached,
        blocks_total=ledger.shape.num_blocks,
        step_seconds=speed.step_seconds,
        prefill_token_seconds=speed.prefill_token_seconds,
        tiers=ledger.tiers.stats(),
        streamed=len(ledger.phases[Phase.STREAMED]),
        streamed_blocks=sum([slot.streamed for slot in ledger.phases[Phase.STREAMED].values()]),
        **{field.name: getattr(counters, field.name) for field in fields(counters)},
    )


def core_stats(waiting: Iterable[Request], groups: Iterable[GroupStats], left: Counters) -> CoreStats:
    """Those of all groups. ``left``: the totals of groups that have left."""
    waiting, groups = list(waiting), list(groups)
    sums = {
        field.name: sum(getattr(group, field.name) for group in groups) + getattr(left, field.name, 0)
        for field in fields(CoreStats)[3:]
    }
    return CoreStats(groups=len(groups), waiting=len(waiting), waiting_by_tenant=by_tenant(waiting), **sums)
