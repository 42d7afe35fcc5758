"""Branches that wait until the first of them has computed the prompt that they have in common."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler_svc.core.queue import KeyedQueue
from scheduler_svc.core.request import Request


class Held:
    """The branches of a request but the first, until a plan carries the end of the first one's prefill.

    Then they queue up at their places and share its blocks: steps run in the order of their plans, so the
    KV is there before any later step reads it. Until then they keep nobody behind them from a slot.

    Mutated by the core (hold, drop) and by the draft (free).
    """

    def __init__(self, waiting: KeyedQueue[Request]) -> None:
        self._waiting = waiting
        self._behind: dict[Request, list[Request]] = {}  # by the first of them; never empty

    def __len__(self) -> int:
        return sum(map(len, self._behind.values()))

    def __iter__(self) -> Iterator[Request]:
        """In no particular order."""
        for others in self._behind.values():
            yield from others

    @property
    def firsts(self) -> set[Request]:
        """Those that others are held behind."""
        return set(self._behind)

    def hold(self, first: Request, others: list[Request]) -> None:
        """Keeps ``others`` back until ``first`` has its prompt computed."""
        if others:
            self._behind[first] = others

    def free(self, first: Request) -> None:
        """A plan carries the end of the first one's prefill: those behind it queue up."""
        for request in self._behind.pop(first, ()):
            self._waiting.push(request, request.order)

    def drop(self, request: Request) -> None:
        """A request ends. If others were held behind it, the next of them goes first."""
        others = self._behind.pop(request, None)
        if others is not None:
            first, *rest = others
            self._waiting.push(first, first.order)
            self.hold(first, rest)
            return
        for member in request.family:
            others = self._behind.get(member)
            if others is not None and request in others:
                others.remove(request)
                if not others:
                    del self._behind[member]
