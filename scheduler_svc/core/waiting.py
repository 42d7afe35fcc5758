"""The queue of the requests that wait for a slot of any group.

The request table and the ledgers change it; the placement reads it in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from scheduler_svc.core.queue import KeyedQueue
from scheduler_svc.core.request import Request

PROMPT_SERVICE = 1.0
OUTPUT_SERVICE = 2.0
"""Service that a computed token of a prompt and an output token are charged as: the weights of the virtual
token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024)."""


class WaitingQueue:
    """Requests in the order in which they get slots: first those that came back, then the others, both by
    their ``order``. Each request is in it once at most."""

    def __init__(self) -> None:
        self._back: KeyedQueue[Request] = KeyedQueue()
        self._new: KeyedQueue[Request] = KeyedQueue()

    def __len__(self) -> int:
        return len(self._back) + len(self._new)

    def __contains__(self, request: Request) -> bool:
        return request in self._back or request in self._new

    def __iter__(self) -> Iterator[Request]:
        """In no particular order."""
        return chain(self._back, self._new)

    def push(self, request: Request) -> None:
        """A request that has never been placed on a group."""
        self._new.push(request, request.order)

    def push_front(self, request: Request) -> None:
        """One that was placed or ran on a group, and has to be placed again."""
        self._back.push(request, request.order)

    def remove(self, request: Request) -> None:
        """Takes a request out, wherever it stands; nothing happens if it is not in the queue."""
        self._back.remove(request)
        self._new.remove(request)

    def in_order(self) -> Iterator[Request]:
        """First the one that is to be placed next. Lazy: the first few cost little in a long queue. While it
        is iterated over, the request that came last may be removed, and nothing else may change."""
        return chain(self._back.in_order(), self._new.in_order())

    def charge(self, tenant: str, service: float) -> None:
        """A tenant got service, in the units above. This queue's order does not depend on it."""
