"""The steady part of a run: the figures that splits are compared by leave out how it begins and how it ends.

At first all requests are in prefill at once, at last a few long ones run alone; both last longer, in
proportion, where a group is slow. ``albireo bench serve`` and ``albireo simulate`` report whole runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from albireo.planning.result import RequestTimes
from albireo.planning.workload import Workload


@dataclass(frozen=True, slots=True)
class Part:
    """From the end of one request to the end of another, which are counted in the order of their ends."""

    first: int  # requests that have ended when it begins
    last: int  # and when it ends

    def span(self, requests: Sequence[RequestTimes]) -> tuple[float, float]:
        """Begin and end in seconds of the run."""
        ended = sorted(request.ended for request in requests)
        return (ended[self.first - 1] if self.first else 0.0), ended[self.last - 1]


def whole_run(workload: Workload) -> Part:
    return Part(0, len(workload.requests))


def steady_part(workload: Workload) -> Part:
    """In a closed loop while its concurrency holds, after as many requests have ended; in an open loop
    without the first and last tenth. All of a run that is too short for that."""
    count = len(workload.requests)
    edge = workload.concurrency or count // 10
    return Part(edge, count - edge) if count >= 3 * edge else whole_run(workload)


def tokens_within(requests: Sequence[RequestTimes], begin: float, end: float) -> float:
    """Output tokens from ``begin`` to ``end``. Between the first and the last of a request its tokens are
    taken as evenly spaced."""
    found = 0.0
    for request in requests:
        if not request.tokens:
            continue
        found += begin < request.first <= end
        decoding = request.ended - request.first
        if decoding > 0:
            overlap = min(end, request.ended) - max(begin, request.first)
            found += (request.tokens - 1) * max(0.0, overlap) / decoding
    return found


def counted(
    workload: Workload, requests: Sequence[RequestTimes], begin: float, end: float
) -> Sequence[RequestTimes]:
    """Those whose latencies count: of a closed loop the ones sent from ``begin`` to ``end``, of an open loop
    all, since there the arrivals belong to the workload."""
    if not workload.concurrency:
        return requests
    return [request for request in requests if begin <= request.sent < end]
