"""The steady part of a run: without the first and the last requests in flight."""

from __future__ import annotations

import pytest

from albireo.planning.choice.steady import Part, counted, steady_part, tokens_within
from albireo.planning.result import RequestTimes
from albireo.planning.workload import Workload, WorkloadRequest


def workload(requests: int, concurrency: int) -> Workload:
    return Workload("made up", (WorkloadRequest(0.0, 8, 8),) * requests, concurrency)


@pytest.mark.parametrize(
    ("requests", "concurrency", "part"),
    [
        (48, 16, Part(16, 32)),
        (47, 16, Part(0, 47)),
        (100, 0, Part(10, 90)),
        (5, 0, Part(0, 5)),
    ],
)
def test_a_part_leaves_out_the_concurrency_or_a_tenth(requests: int, concurrency: int, part: Part) -> None:
    assert steady_part(workload(requests, concurrency)) == part


def test_a_part_lasts_from_one_end_to_another() -> None:
    requests = [RequestTimes(0.0, ended=ended) for ended in (4.0, 1.0, 3.0, 2.0)]
    assert Part(1, 3).span(requests) == (1.0, 3.0)
    assert Part(0, 4).span(requests) == (0.0, 4.0)


def test_tokens_are_counted_where_they_fall() -> None:
    long = RequestTimes(0.0, first=1.0, ended=11.0, tokens=21)
    assert tokens_within([long], 0.0, 11.0) == 21
    assert tokens_within([long], 2.0, 6.0) == 8
    assert tokens_within([long], 0.0, 1.0) == 1
    assert tokens_within([long], 11.0, 20.0) == 0
    single = RequestTimes(0.0, first=5.0, ended=5.0, tokens=1)
    refused = RequestTimes(0.0, error="refused")
    assert tokens_within([long, single, refused], 4.0, 6.0) == 5


def test_latencies_count_of_requests_that_were_sent_within_and_of_all_in_an_open_loop() -> None:
    requests = [RequestTimes(sent) for sent in (0.0, 1.0, 1.5, 2.0)]
    assert counted(workload(4, 1), requests, 1.0, 2.0) == requests[1:3]
    assert counted(workload(4, 0), requests, 1.0, 2.0) == requests
