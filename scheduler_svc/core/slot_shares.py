"""How many slots the requests of each tenant hold, against its share of all slots.

The request table counts; the placement asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class SlotShares:
    """A tenant that is there, with a request that waits or runs, has a share of the slots by its weight.

    One that holds more than its share leaves the last free slots of each group to the others: a fair queue
    alone cannot keep a request of theirs from waiting until one of its requests ends. A tenant that is alone
    has all slots.
    """

    def __init__(self) -> None:
        self.slots = 0  # of all groups
        self._weights: Mapping[str, float] = {}
        self._live: Counter[str] = Counter()  # requests by tenant; none is 0
        self._held: Counter[str] = Counter()  # slots by tenant, those that requests are placed for included
        self._sum = 0.0  # of the weights of the tenants in ``_live``

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Above 0; 1 for tenants that are not named."""
        self._weights = weights
        self._sum = sum(map(self._weight, self._live))

    def enter(self, tenant: str) -> None:
        """A request of a tenant is there."""
        if tenant not in self._live:
            self._sum += self._weight(tenant)
        self._live[tenant] += 1

    def leave(self, tenant: str) -> None:
        """It has ended."""
        self._live[tenant] -= 1
        if not self._live[tenant]:
            del self._live[tenant]
            self._sum = self._sum - self._weight(tenant) if self._live else 0.0  # no rounding is kept

    def take(self, tenant: str) -> None:
        """A request is placed on a group."""
        self._held[tenant] += 1

    def give(self, tenant: str) -> None:
        """It is there no more."""
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]

    def exceeds(self, tenant: str) -> bool:
        """Whether one slot more is beyond the tenant's share while others are there."""
        if len(self._live) < 2:
            return False
        return (self._held[tenant] + 1) * self._sum > self.slots * self._weight(tenant)

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)
