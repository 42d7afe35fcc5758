"""The room of one group: what it can take with its next plan, and how soon that would bring a first token.

The placement makes it when the group's state has changed, and keeps it up to date while it places requests.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.contract.plan import blocks_for
from scheduler_svc.core.group_core import GroupCore
from scheduler_svc.core.limits import spare_blocks
from scheduler_svc.core.pending import Claim
from scheduler_svc.core.request import Phase


@dataclass(slots=True)
class Room:
    """One group, as the placement compares it with others."""

    group: GroupCore
    slots: int  # free ones
    budget: int  # tokens of prompts that the next plan can still take
    blocks: int  # free ones, without those that running requests and prompts in prefill need next
    reserve: int  # of these, what is kept once a request runs; 0 if one does
    load: float  # seconds: requests that run or are placed, and one more, times the seconds of a step
    delay: float  # seconds until a request without any token to compute would have its first output
    step: float  # seconds
    token: float  # seconds that a token of a prompt adds to a step
    longest: int  # tokens of a request
    chunk: int  # tokens
    bit: int

    @property
    def full(self) -> bool:
        """Whether no request can be placed."""
        return self.slots <= 0 or self.budget <= 0 or self.blocks <= 0

    def take(self, claim: Claim) -> None:
        """One more request is placed."""
        self.slots -= 1
        self.budget -= min(self.chunk, claim.tokens)
        self.blocks -= claim.blocks + self.reserve
        self.reserve = 0
        self.load += self.step
        self.delay += claim.tokens * self.token


def room_of(group: GroupCore) -> Room | None:
    """The room of a group by the rules of its plan builder, and before it runs; None if there is none."""
    ledger, limits = group.ledger, group.limits
    pending, phases = ledger.pending, ledger.phases
    if pending.alone is not None or phases[Phase.PAUSED]:
        return None
    # What the next plan releases is free at once where its last step has settled.
    settled = ledger.settled_step
    freed = [o for o in phases[Phase.FINISHED].values() if o.last_step <= settled]
    ends = sum(1 for o in ledger.due if o.phase is Phase.DECODING and o.at_length_end)
    running = ledger.num_running - ends + len(pending.placed)
    slots = min(len(ledger.free_slots) + len(freed) - len(pending.placed), limits.max_num_seqs - running)
    if slots <= 0:
        return None
    rows = len(phases[Phase.DECODING]) - ends
    needy = sum(1 for o in ledger.due if o.phase is Phase.DECODING and not o.at_length_end)
    budget = limits.max_num_batched_tokens - rows
    blocks = ledger.pool.num_free - needy
    blocks += sum(ledger.pool.owners(block) == 1 for o in freed for block in o.blocks)
    waiting = 0
    for occupancy in phases[Phase.PREFILLING].values():
        left = occupancy.prefill - occupancy.scheduled
        waiting += left
        budget -= min(limits.prefill_chunk, left)
        blocks -= blocks_for(occupancy.prefill) - len(occupancy.blocks)
    reserve = spare_blocks(ledger.shape)
    step, token = group.speed.step_seconds, group.speed.prefill_token_seconds
    room = Room(
        group=group,
        slots=slots,
        budget=budget,
        blocks=blocks - reserve if running else blocks,
        reserve=0 if running else reserve,
        load=(running + 1) * step,
        delay=step + waiting * token,
        step=step,
        token=token,
        longest=ledger.shape.max_model_len,
        chunk=limits.prefill_chunk,
        bit=pending.bit,
    )
    for claim in pending.placed.values():
        room.budget -= min(room.chunk, claim.tokens)
        room.blocks -= claim.blocks
        room.delay += claim.tokens * token
    return None if room.full else room
