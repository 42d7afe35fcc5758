"""The branches that wait for the prefill of the prompt which they have in common.

The request table changes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from scheduler_svc.core.request import Request


class HeldBranches:
    """All branches of a request but the first, until a plan contains the last chunk of the first's prompt.

    Then they join the queue at their places and share its blocks: steps run in the order of their plans, so
    the KV exists before any later step reads it. Until then they are not in the queue, where they would
    keep later requests from a free slot. Written by the request table.
    """

    def __init__(self) -> None:
        self._by_first: dict[Request, list[Request]] = {}  # no list is empty

    def __len__(self) -> int:
        return sum(map(len, self._by_first.values()))

    def __iter__(self) -> Iterator[Request]:
        """In no particular order."""
        for others in self._by_first.values():
            yield from others

    @property
    def by_first(self) -> Mapping[Request, Sequence[Request]]:
        """The held branches, by the branch that they wait for."""
        return self._by_first

    def hold(self, first: Request, others: list[Request]) -> None:
        """Holds ``others`` until the prompt of ``first`` is computed."""
        if others:
            self._by_first[first] = others

    def pop(self, first: Request) -> list[Request]:
        """The prompt of ``first`` is computed: returns those that waited for it."""
        return self._by_first.pop(first, [])

    def remove(self, request: Request) -> Request | None:
        """A request has ended. If others waited for it, the next of them takes its role and is returned."""
        others = self._by_first.pop(request, None)
        if others is not None:
            first, *rest = others
            self.hold(first, rest)
            return first
        for member in request.family:
            others = self._by_first.get(member)
            if others is not None and request in others:
                others.remove(request)
                if not others:
                    del self._by_first[member]
        return None
