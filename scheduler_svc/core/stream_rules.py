"""Which requests of a group are streamed, and what they take of it.

The core of a group makes it; the plan builder and the placement ask it.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from albireo.contract.tiers import RESIDENT_SHARE
from scheduler_svc.core.directory import TierDirectory
from scheduler_svc.core.fetching import Source
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits, is_long
from scheduler_svc.core.pending import Claim
from scheduler_svc.core.prefix import NO_PREFIX, Prefix, claim, find_prefix
from scheduler_svc.core.request import Occupancy, Phase, Request

MOST_OF_CHUNK = 2
"""A chunk of a streamed slot has one in so many blocks of the group at most, so that others have some."""


class StreamRules:
    """A group whose requests may be longer than its blocks streams those whose tokens do not fit: they have a
    few blocks, and the KV before these is in frames of one tier."""

    def __init__(self, ledger: Ledger, limits: Limits) -> None:
        """``limits`` are those of the group."""
        shape = ledger.shape
        self._ledger = ledger
        self.active = bool(ledger.tiers.directories) and shape.max_model_len > shape.num_blocks * BLOCK_SIZE
        of_chunk = min(blocks_for(limits.prefill_chunk) + 2, shape.num_blocks // MOST_OF_CHUNK)
        # Blocks of a streamed slot, at most:
        self.resident = max(1, of_chunk, shape.num_blocks // RESIDENT_SHARE)

    def is_long(self, tokens: int) -> bool:
        """Whether a slot with so many tokens cannot have all their blocks."""
        return is_long(self._ledger.shape, tokens)

    def takes(self, occupancy: Occupancy) -> bool:
        """Whether a slot is streamed, or will be before its prompt is computed."""
        if occupancy.phase is Phase.PREFILLING:
            return self.is_long(occupancy.prefill)
        return occupancy.phase is Phase.STREAMED

    def missing(self, occupancy: Occupancy) -> int:
        """How many blocks a slot needs in addition to those it has, until its prompt is computed."""
        missing = blocks_for(occupancy.prefill) - occupancy.streamed - len(occupancy.blocks)
        if self.takes(occupancy):
            missing = min(max(1, missing), self.resident - len(occupancy.blocks))
        return max(0, missing)

    def all_missing(self) -> int:
        """Those of all slots that prefill or are streamed."""
        phases = self._ledger.phases
        some = (*phases[Phase.PREFILLING].values(), *phases[Phase.STREAMED].values())
        return sum(map(self.missing, some))

    def tier_of(self, request: Request) -> TierDirectory:
        """Where the blocks of a request are if it is streamed: the fastest tier that can hold all of them,
        else the largest one."""
        directories = self._ledger.tiers.directories
        holds = (tier for tier in directories if tier.frames >= blocks_for(request.end))
        return next(holds, max(directories, key=lambda tier: tier.frames))

    def find_prefix(self, request: Request, tiers: Sequence[TierDirectory]) -> Prefix:
        """Where the first tokens of a waiting request have KV. If it is long, they are in the frames of one
        tier, from which they are streamed. ``tiers``: those from which it is worth to fetch blocks."""
        if not self.is_long(len(request.tokens)):
            return find_prefix(self._ledger, request, tiers)
        if request.needs_prompt_logprobs:
            return NO_PREFIX
        directory, found = self.tier_of(request), list[Source]()
        for index in range((len(request.tokens) - 1) // BLOCK_SIZE):
            key = request.key(index)
            frame = self._ledger.tiers.find_copied(directory, key)
            if frame is None:
                break
            found.append(Source(directory.number, frame, key))
        return Prefix([], [], found)

    def claim(self, request: Request, prefix: Prefix) -> Claim:
        """What the admission of a request takes that has a prefix."""
        tokens, blocks = claim(self._ledger, request, prefix)
        if not self.is_long(len(request.tokens)):
            return Claim(tokens, blocks)
        return Claim(tokens, min(self.resident, blocks - len(prefix.streamed)))

    def has_frames(self, request: Request) -> bool:
        """Whether a request finds frames for all its blocks apart from those that others read, if it is
        long. So it does not take those that a streamed slot needs next."""
        if not self.is_long(len(request.tokens)):
            return True
        directory = self.tier_of(request)
        return directory.num_unpinned >= min(blocks_for(len(request.tokens)), directory.frames)
