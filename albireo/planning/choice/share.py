"""The share of a workload that one of several groups gets.

One group is simulated, not all together: the groups of a split are alike, and the scheduler gives each as
much as the others. Left out is that a request takes the first free slot of any group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from albireo.planning.workload import Workload, WorkloadRequest


@dataclass(frozen=True, slots=True)
class Share:
    workload: Workload  # of one group
    scale: float  # by how much the throughput of all groups is larger


def share_of(workload: Workload, groups: int) -> Share:
    """Every ``groups``-th request, a conversation with all its turns. In a closed loop with as many at a time
    as the fullest group has: rounded up, and ``scale`` then counts each in flight once."""
    first_turns = workload.first_turns
    requests = _chosen(workload, first_turns[::groups])
    if not workload.concurrency:
        return Share(replace(workload, requests=requests), len(workload.requests) / len(requests))
    in_flight = min(workload.concurrency, len(first_turns))
    concurrency = -(-in_flight // groups)
    scale = in_flight / concurrency
    return Share(replace(workload, requests=requests, concurrency=concurrency), scale)


def _chosen(workload: Workload, first_turns: Sequence[int]) -> tuple[WorkloadRequest, ...]:
    """The conversations with these first turns, in the order of the workload."""
    next_turns, indexes = workload.next_turns, []
    for first in first_turns:
        index: int | None = first
        while index is not None:
            indexes.append(index)
            index = next_turns.get(index)
    indexes.sort()
    numbers = {index: number for number, index in enumerate(indexes)}
    requests = (workload.requests[index] for index in indexes)
    return tuple(r if r.after is None else replace(r, after=numbers[r.after]) for r in requests)
