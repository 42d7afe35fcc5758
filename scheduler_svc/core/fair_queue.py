"""The queue of the requests that wait for a slot: tenants by their shares, then each tenant's in its order.

The core makes it, and places the requests that it gives first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from scheduler_svc.core.queue import KeyedQueue
from scheduler_svc.core.request import Order, Request

MAX_LEFT_OUT = 16
MAX_IDLE_TENANTS = 4096
"""Tenants without a waiting request whose counters are kept: those charged last."""


@dataclass(slots=True, eq=False)
class _Tenant:
    name: str = ""
    counter: float = 0.0  # service charged so far, divided by the weight of the tenant, and lifted
    joined: int = 0  # number of its present stay in the queue
    waiting: KeyedQueue[Request] = field(default_factory=KeyedQueue)

    @property
    def key(self) -> Order:
        """Of two tenants with the same counter the one that has waited for longer comes first: a flow of
        new tenants, all lifted to the same level, passes no tenant by."""
        return self.counter, self.joined


class FairQueue:
    """A weighted fair queue: first the requests of the tenant that has had the least service for its weight.

    **Scheme.** The Virtual Token Counter (VTC), with weights, of Sheng et al., "Fairness in Serving Large
    Language Models" (OSDI 2024). Each tenant has a counter of the service that it has been charged for
    (:meth:`charge`), divided by its weight. The next request is the first of the tenant with the lowest
    counter. A tenant that joins the queue is lifted: its counter is raised to the lowest of those that wait,
    or where none waits to that of the tenant which left the queue last. So a tenant without requests banks no
    credit. A tenant alone gets everything.

    **Bound.** While two tenants of equal weight both have requests waiting, the service that they get differs
    by at most ``2 * max(prefill weight * longest prompt, decode weight * tokens that all running requests can
    hold)``, and with weights the same holds for service divided by weight: the bound of that paper, which the
    tests check on a simulated server.

    **Within a tenant** the order is that of ``Request.order``: a priority is a head start there, and every
    request comes first at some time, since the others of its tenant come later or were there before.

    **Requests that came back**, preempted or from a group that died, come before all others, whatever their
    tenant, in their order. They have had their turn; their tenants' counters do not change by it.

    **Requests set aside** (:meth:`set_aside`) are in the queue and have no place in its order, until they are
    recalled and come back.

    **Memory.** A counter matters only while it is above the level to which its tenant would be lifted. This
    level never goes down, since counters only rise, and a tenant that joins is at the level at least. So most
    counters of idle tenants mean nothing after a while, and the ``MAX_IDLE_TENANTS`` charged last are kept: a
    tenant that is forgotten gains at most what it had above the level, never credit.

    Each call takes O(log n) time, amortised; n: requests of the tenant, or tenants that wait.
    """

    def __init__(self, *, prefill_weight: float = 1.0) -> None:
        """``prefill_weight``: service of one prompt token, by which :meth:`in_order` looks ahead."""
        self._prefill_weight = prefill_weight
        self._weights: Mapping[str, float] = {}
        self._returned: KeyedQueue[Request] = KeyedQueue()
        self._aside: dict[Request, None] = {}
        self._queued: dict[str, _Tenant] = {}  # with requests in ``waiting``
        self._idle: dict[str, _Tenant] = {}  # without; the one charged last is the last
        self._by_counter: KeyedQueue[_Tenant] = KeyedQueue()  # queued ones
        self._charged: dict[_Tenant, None] = {}  # of these, whose key there is behind its counter
        self._left_last = _Tenant()  # who emptied the queue, when it became empty
        self._joins = 0
        self._len = 0

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Shares of the tenants, above 0; 1 for those not named. For charges from now on."""
        self._weights = weights

    def __len__(self) -> int:
        return self._len

    def __contains__(self, request: Request) -> bool:
        tenant = self._queued.get(request.submission.tenant)
        waits = tenant is not None and request in tenant.waiting
        return waits or request in self._returned or request in self._aside

    def __iter__(self) -> Iterator[Request]:
        """In no particular order."""
        yield from self._returned
        yield from self._aside
        for tenant in self._queued.values():
            yield from tenant.waiting

    def push(self, request: Request) -> None:
        """Adds a request that is not in the queue."""
        name = request.submission.tenant
        tenant = self._queued.get(name)
        if tenant is None:
            tenant = self._idle.pop(name, None) or _Tenant(name)
            tenant.counter = max(tenant.counter, self._level())
            self._joins += 1
            tenant.joined = self._joins
            self._queued[name] = tenant
            self._by_counter.push(tenant, tenant.key)
        tenant.waiting.push(request, request.order)
        self._len += 1

    def push_front(self, request: Request) -> None:
        """Adds a request that came back: it held a slot, or was about to get one."""
        self._returned.push(request, request.order)
        self._len += 1

    def has_returned(self, request: Request) -> bool:
        """Whether it came back, and waits in front of all others."""
        return request in self._returned

    def set_aside(self, request: Request) -> None:
        """A request of the queue has no turn for now: no group that is there can hold it."""
        self.remove(request)
        self._aside[request] = None
        self._len += 1

    def recall(self) -> None:
        """Requests that were set aside come back."""
        for request in self._aside:
            self._returned.push(request, request.order)
        self._aside.clear()

    def remove(self, request: Request) -> None:
        """Takes a request out, wherever it stands; nothing happens if it is not in the queue."""
        name = request.submission.tenant
        tenant = self._queued.get(name)
        if request in self._returned:
            self._returned.remove(request)
        elif request in self._aside:
            del self._aside[request]
        elif tenant is not None and request in tenant.waiting:
            tenant.waiting.remove(request)
            if not tenant.waiting:
                del self._queued[name]
                self._by_counter.remove(tenant)
                self._left_last = tenant
                self._keep(name, tenant)
        else:
            return
        self._len -= 1

    def charge(self, name: str, service: float) -> None:
        """A tenant has had so much service: weighted tokens, of requests that wait no longer."""
        tenant = self._queued.get(name)
        if tenant is not None:
            self._charged[tenant] = None
        else:
            tenant = self._idle.pop(name, None) or _Tenant(name)
            self._keep(name, tenant)
        tenant.counter += self._weighed(name, service)

    def in_order(self, *, without: Callable[[str], bool] | None = None) -> Iterator[Request]:
        """All requests but those set aside, the next first, each found when it is asked for. While it is
        iterated over, the request that came last may be removed, and tenants may be charged, which counts
        from the next call on.

        Behind the first, the order is the one that comes about if each before it is admitted with nothing
        of its prompt cached, and no other service is charged. New requests of tenants for which ``without``
        returns true are left out, and those of all behind ``MAX_LEFT_OUT`` such tenants.
        """
        yield from self._returned.in_order()
        self._sort()
        tenants = self._by_counter.in_order()
        following = next(tenants, None)
        left_out = 0
        ahead: list[
            tuple[Order, Iterator[Request]]
        ] = []  # tenants whose turn has come, with their next turns
        while following is not None or ahead:
            if following is not None and (not ahead or following.key < ahead[0][0]):
                if without is None or not without(following.name):
                    heapq.heappush(ahead, (following.key, following.waiting.in_order()))
                else:
                    left_out += 1
                following = next(tenants, None) if left_out < MAX_LEFT_OUT else None
                continue
            (counter, joined), requests = heapq.heappop(ahead)
            for request in islice(requests, 1):
                submission = request.submission
                counter += self._weighed(submission.tenant, self._prefill_weight * len(submission.prompt))
                heapq.heappush(ahead, ((counter, joined), requests))
                yield request

    def _weighed(self, name: str, service: float) -> float:
        return service / self._weights.get(name, 1.0)

    def _keep(self, name: str, tenant: _Tenant) -> None:
        """Of a tenant without a waiting request."""
        self._idle[name] = tenant
        if len(self._idle) > MAX_IDLE_TENANTS:
            del self._idle[next(iter(self._idle))]

    def _level(self) -> float:
        """The counter to which a tenant that joins is lifted."""
        self._sort()
        first = self._by_counter.peek()
        return (first[1] if first else self._left_last).counter

    def _sort(self) -> None:
        """Puts the tenants that were charged where their counters are now."""
        for tenant in self._charged:
            if tenant in self._by_counter:
                self._by_counter.remove(tenant)
                self._by_counter.push(tenant, tenant.key)
        self._charged.clear()
