"""What the scheduler does for the shares and quotas of tenants: it reads their policies, gives the core the
weights, and reports what became of their requests.

The epoch makes it; the service's thread calls it.
"""

from __future__ import annotations

from collections.abc import Callable

from albireo.contract.tenants import DEFAULT, TenantPolicy
from albireo.runtime.clock import Clock
from albireo.store.interface import Store, TenantReport
from scheduler_svc.core import SchedulerCore, TenantTally

READ_SECONDS = 1.0
"""How often the policies are read."""
REPORT_SECONDS = 0.25
"""How often tokens are reported, and ends of requests of tenants without a quota that depends on them."""
MINUTE_MS = 60_000


class TenantAccounts:
    """Of one epoch. A report is sent in the turn in which requests of a tenant that may have so many at once
    end, or leave the queue where their places are counted, so that the next request is not refused for one
    that is over; else a few times a second."""

    def __init__(
        self,
        epoch: int,
        core: SchedulerCore,
        store: Store,
        clock: Clock,
        *,
        served: Callable[[str, float], None],
    ) -> None:
        """``served`` is called with a tenant and the service that it was charged for."""
        self._epoch = epoch
        self._core = core
        self._store = store
        self._clock = clock
        self._served = served
        self._policies: dict[str, TenantPolicy] = {}
        self._tallies: dict[str, TenantTally] = {}  # not reported
        self._reports = 0  # sent
        self._next_read = self._next_report = 0.0  # by the clock

    def look(self) -> None:
        """Reads the policies if it is time. Raises RedisError."""
        now = self._clock.now()
        if now < self._next_read:
            return
        self._next_read = now + READ_SECONDS
        self._policies = self._store.tenant_policies()
        self._core.set_weights({name: policy.weight for name, policy in self._policies.items()})

    def report(self) -> None:
        """Sends what is due, after each turn and a few times a second. Raises RedisError."""
        urgent = False
        for tenant, tally in self._core.take_tallies().items():
            self._tallies.setdefault(tenant, TenantTally()).add(tally)
            self._served(tenant, tally.service)
            policy = self._policies.get(tenant, DEFAULT)
            urgent |= bool(tally.ended and policy.max_requests)
            urgent |= bool(tally.departed and policy.queue_share < 1)
        now = self._clock.now()
        if not self._tallies or not (urgent or now >= self._next_report):
            return
        self._next_report = now + REPORT_SECONDS
        self._reports += 1
        reports = {tenant: self._report_of(tenant, tally) for tenant, tally in self._tallies.items()}
        self._tallies = {}
        self._store.report_tenants(reports, epoch=self._epoch, number=self._reports)

    def _report_of(self, tenant: str, tally: TenantTally) -> TenantReport:
        rate = self._policies.get(tenant, DEFAULT).tokens_per_minute
        cost_ms = tally.outputs * MINUTE_MS / rate if rate else 0.0
        return TenantReport(tally.departed, tally.ended, cost_ms)
