"""The share of one group: every n-th request, and a throughput that is scaled to all requests in flight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.planning.choice.share import share_of
from albireo.planning.workload import Workload, WorkloadRequest


def workload(requests: int, concurrency: int) -> Workload:
    return Workload(
        "made up", tuple(WorkloadRequest(i * 0.5, 10 + i, 5) for i in range(requests)), concurrency
    )


def test_one_group_gets_all() -> None:
    whole = workload(100, 16)
    share = share_of(whole, 1)
    assert share.workload == whole
    assert share.scale == 1


@given(st.integers(1, 300), st.integers(1, 16))
def test_of_a_closed_loop_every_request_in_flight_counts_once(concurrency: int, groups: int) -> None:
    share = share_of(workload(400, concurrency), groups)
    assert share.scale * share.workload.concurrency == pytest.approx(concurrency)
    assert share.workload.concurrency * groups >= concurrency
    assert share.scale <= groups


def test_requests_that_are_fewer_than_the_concurrency_are_what_is_in_flight() -> None:
    share = share_of(workload(4, 16), 8)
    assert (share.workload.concurrency, len(share.workload.requests), share.scale) == (1, 1, 4)


def test_a_conversation_stays_in_one_group() -> None:
    """Four of three turns each; the turns of two are one after the other, those of two interleaved."""
    after = [None, 0, 1, None, None, 3, 4, 5, 6, None, 9, 10]
    requests = tuple(WorkloadRequest(0, 10 * i + 10, 5, after=before) for i, before in enumerate(after))
    share = share_of(Workload("w", requests, concurrency=4), 2)
    assert [request.prompt // 10 - 1 for request in share.workload.requests] == [0, 1, 2, 4, 6, 8]
    assert [request.after for request in share.workload.requests] == [None, 0, 1, None, 3, 4]
    assert (share.workload.concurrency, share.scale) == (2, 2)


def test_of_an_open_loop_a_group_gets_every_nth_arrival_at_its_time() -> None:
    share = share_of(workload(8, 0), 4)
    assert [request.at for request in share.workload.requests] == [0.0, 2.0]
    assert share.scale == 4
