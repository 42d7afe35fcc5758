"""Which tenants have had more than their share of the service of late.

The request table counts; placement and plan builder ask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

SERVICE_OF_A_SLOT = 2048.0
"""What a tenant has had counts half after so many weighted tokens for each slot of all groups."""
MAX_IDLE_TENANTS = 4096
"""Tenants without a request, of which no more are kept: without keys a client may name one for each
request."""
LARGEST_SCALE = 1e12
MOST_HALVINGS = 64.0
"""By one charge: nothing of before counts then."""


class ServiceShares:
    """Of the tenants that have a request which waits or runs: each has a share of the service, by its weight.

    One beyond its share leaves the last free slots of each group to the others, and prefills in portions
    (``Limits.open_to_all``): a fair queue decides who is next, but cannot keep the next request of another
    tenant from waiting until one ends, or for a long step. A tenant that is alone is not beyond its share,
    whatever it has had.

    Service is a sum that decays as service is given (an exponentially weighted one): what a tenant has had
    long ago, by the service of all since then, does not count. All is kept times a scale that grows, so that
    a charge changes one number.
    """

    def __init__(self) -> None:
        self.slots = 0  # of all groups
        self._weights: Mapping[str, float] = {}
        self._live: Counter[str] = Counter()  # requests by tenant; none is 0
        self._service: dict[str, float] = {}  # by tenant that is there or was of late, times the scale
        self._scale = 1.0
        self._sum_weights = 0.0  # of the tenants that are there
        self._sum_service = 0.0  # of these, times the scale

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Above 0; 1 for tenants that are not named."""
        self._weights = weights
        self._sum_weights = sum(map(self._weight, self._live))

    def enter(self, tenant: str) -> None:
        """A request of a tenant is there."""
        self._live[tenant] += 1
        if self._live[tenant] == 1:
            self._sum_weights += self._weight(tenant)
            self._sum_service += self._service.get(tenant, 0.0)

    def leave(self, tenant: str) -> None:
        """It has ended."""
        self._live[tenant] -= 1
        if not self._live[tenant]:
            del self._live[tenant]
            self._sum_weights -= self._weight(tenant)
            self._sum_service -= self._service.get(tenant, 0.0)
            if not self._live:
                self._sum_weights = self._sum_service = 0.0  # no rounding stays
            if len(self._service) > MAX_IDLE_TENANTS + len(self._live):
                self._service = {name: had for name, had in self._service.items() if name in self._live}

    def charge(self, tenant: str, service: float) -> None:
        """A tenant that is there has had so much service."""
        halvings = service / (SERVICE_OF_A_SLOT * max(1, self.slots))
        self._scale *= 2.0 ** min(MOST_HALVINGS, halvings)
        self._service[tenant] = self._service.get(tenant, 0.0) + service * self._scale
        self._sum_service += service * self._scale
        if self._scale > LARGEST_SCALE:
            self._begin_scale_anew()

    def exceeds(self, tenant: str) -> bool:
        """Whether a tenant that is there has had more than its share, while others are there."""
        if len(self._live) < 2:
            return False
        had = self._service.get(tenant, 0.0)
        return had * self._sum_weights > self._sum_service * self._weight(tenant)

    def _begin_scale_anew(self) -> None:
        """What counts no more is forgotten: less than one token."""
        self._service = {
            tenant: service / self._scale
            for tenant, service in self._service.items()
            if service > self._scale or tenant in self._live
        }
        self._sum_service = sum(self._service.get(tenant, 0.0) for tenant in self._live)
        self._scale = 1.0

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)
