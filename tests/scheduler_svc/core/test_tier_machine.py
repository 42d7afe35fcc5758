"""Random histories of groups with KV tiers: no wrong block is ever read, and followers agree."""

from __future__ import annotations

from hypothesis.stateful import rule

from .machine import explore
from .tier_machine import EXAMPLES, TierMachine


class SynchronousTierMachine(TierMachine):
    max_in_flight = 1


class ManyGroupsTierMachine(TierMachine):
    max_groups = 3


class FollowedTierMachine(TierMachine):
    followed = True
    max_groups = 2

    @rule()
    def promote(self) -> None:
        self.world.promote()


TestTiersSynchronous = explore(SynchronousTierMachine, examples=EXAMPLES)
TestTiers = explore(TierMachine, examples=EXAMPLES)
TestTiersManyGroups = explore(ManyGroupsTierMachine, examples=EXAMPLES)
TestTiersFollowed = explore(FollowedTierMachine, examples=EXAMPLES)
