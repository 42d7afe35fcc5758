"""Random histories of groups with KV tiers: no wrong block is ever read, and followers agree."""

from __future__ import annotations

from .machine import explore
from .tier_machine import TierMachine


class SynchronousTierMachine(TierMachine):
    max_in_flight = 1
    max_groups = 1


class FollowedTierMachine(TierMachine):
    followed = True


TestTiersSynchronous = explore(SynchronousTierMachine)
TestTiers = explore(TierMachine)
TestTiersFollowed = explore(FollowedTierMachine)
