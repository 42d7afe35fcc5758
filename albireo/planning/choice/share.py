"""The share of a workload that one of several groups gets.

One group is simulated, not all together: the groups of a split are alike, and the scheduler gives each as
much as the others. Left out is that a request takes the first free slot of any group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from albireo.planning.workload import Workload


@dataclass(frozen=True, slots=True)
class Share:
    workload: Workload  # of one group
    scale: float  # by how much the throughput of all groups is larger


def share_of(workload: Workload, groups: int) -> Share:
    """Every ``groups``-th request. In a closed loop with as many at a time as the fullest group has: rounded
    up, and ``scale`` then counts each request in flight once."""
    requests = workload.requests[::groups]
    if not workload.concurrency:
        return Share(replace(workload, requests=requests), len(workload.requests) / len(requests))
    in_flight = min(workload.concurrency, len(workload.requests))
    concurrency = -(-in_flight // groups)
    scale = in_flight / concurrency
    return Share(replace(workload, requests=requests, concurrency=concurrency), scale)
