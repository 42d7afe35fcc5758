"""The capacity of one group: what it can take with its next plan, and how soon that would bring a first
token.

The placement makes it when the group's state has changed, and keeps it up to date while it places requests.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from scheduler_svc.core.directory import TierDirectory
from scheduler_svc.core.group_core import GroupCore
from scheduler_svc.core.limits import spare_blocks
from scheduler_svc.core.pending import Claim
from scheduler_svc.core.prefix import KnownKeys
from scheduler_svc.core.request import Phase


@dataclass(slots=True)
class Capacity:
    """One group, as the placement compares it with others."""

    group: GroupCore
    slots: int  # free ones
    budget: int  # tokens of prompts that the next plan can take
    prefill: int  # tokens of prompts that it takes so far
    blocks: int  # free ones, without those that running requests and prompts in prefill need next
    reserve: int  # of these, what is kept once a request runs; 0 if one does
    load: float  # seconds: requests that run or are placed, times the seconds of a step
    next_load: float  # with one more
    delay: float  # seconds until a request without any token to compute would have its first output
    step: float  # seconds
    token: float  # seconds that a token of a prompt adds to a step
    longest: int  # tokens of a request
    cached: Container[bytes]  # the keys in the prefix cache, and in the tiers that pay
    tiers: Sequence[TierDirectory]  # those that pay
    chunk: int  # tokens

    @property
    def open(self) -> bool:
        """Whether tenants beyond their share may get a slot, too."""
        return self.group.limits.open_to_all(self.slots, self.prefill)

    @property
    def full(self) -> bool:
        """Whether no request can be placed."""
        return self.slots <= 0 or self.prefill >= self.budget or self.blocks <= 0

    def take(self, claim: Claim) -> None:
        """One more request is placed."""
        self.slots -= 1
        self.blocks -= self.reserve
        self.reserve = 0
        self.load = self.next_load
        self.next_load += self.step
        self.wait_for(*claim)

    def wait_for(self, tokens: int, blocks: int) -> None:
        """Tokens that another request computes, and blocks that it needs for them, come first."""
        self.prefill += min(self.chunk, tokens)
        self.blocks -= blocks
        self.delay += tokens * self.token


def capacity_of(group: GroupCore) -> Capacity | None:
    """The capacity of a group by the rules of its plan builder, and before it runs; None if there is none."""
    ledger, limits = group.ledger, group.limits
    pending, phases = ledger.pending, ledger.phases
    if pending.alone is not None or phases[Phase.PAUSED] or ledger.tiers.unknown:
        return None
    # What the next plan releases is free at once where its last step has settled.
    freed = [o for o in phases[Phase.FINISHED].values() if o.last_step <= ledger.settled_step]
    placed = len(pending.placed)
    slots = len(ledger.free_slots) + len(freed) - placed
    running = ledger.num_running + placed
    if running + slots > limits.max_num_seqs:
        running -= sum(1 for o in ledger.due if o.phase is Phase.DECODING and o.at_length_end)
        slots = min(slots, limits.max_num_seqs - running)
    if slots <= 0:
        return None
    reserve = spare_blocks(ledger.shape)
    tiers = group.times.worthwhile(ledger.tiers.directories)
    step, token = group.speed.step_seconds, group.speed.prefill_token_seconds
    capacity = Capacity(
        group=group,
        slots=slots,
        budget=limits.max_num_batched_tokens - len(phases[Phase.DECODING]),
        prefill=0,
        blocks=ledger.pool.num_free - len(ledger.due) - (reserve if running else 0),
        reserve=0 if running else reserve,
        load=running * step,
        next_load=(running + 1) * step,
        delay=step,
        step=step,
        token=token,
        longest=ledger.shape.max_model_len,
        cached=KnownKeys(ledger.pool.cached, tiers) if tiers else ledger.pool.cached,
        tiers=tiers,
        chunk=limits.prefill_chunk,
    )
    for occupancy in freed:
        capacity.blocks += ledger.pool.count_freed(occupancy.blocks)
    for occupancy in (*phases[Phase.PREFILLING].values(), *phases[Phase.STREAMED].values()):
        tokens = max(0, occupancy.prefill - occupancy.scheduled)
        capacity.wait_for(tokens, group.streams.missing(occupancy))
    for claim in pending.placed.values():
        capacity.wait_for(*claim)
    return None if capacity.full else capacity
