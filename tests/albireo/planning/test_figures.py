"""The figures of requests, measured or simulated."""

from __future__ import annotations

import json
import statistics

import pytest
from rich.console import Console

from albireo.planning.figures import add_errors, spread, summarize_requests, table
from albireo.planning.result import RequestTimes


def test_throughput_is_over_the_whole_run_and_latencies_are_of_the_successful() -> None:
    found = summarize_requests(
        [
            RequestTimes(1.0, first=1.5, ended=2.5, tokens=5),
            RequestTimes(2.0, first=3.0, ended=3.0, tokens=1),
            RequestTimes(1.0, ended=5.0, error="gone"),
        ],
        [0.25] * 4,
    )
    assert found["requests"] == 3
    assert found["errors"] == {"gone": 1}
    assert found["seconds"] == 4.0
    assert found["output_tokens"] == 6
    assert found["output_tokens_per_second"] == 1.5
    assert found["requests_per_second"] == 0.5
    assert found["ttft"]["mean"] == 0.75
    assert found["tpot"]["mean"] == 0.25
    assert found["inter_token"]["p99"] == 0.25
    assert found["end_to_end"]["mean"] == 1.25
    json.dumps(found)


def test_a_spread_is_mean_and_percentiles() -> None:
    values = [float(n) for n in range(101)]
    assert spread(values) == {"mean": statistics.mean(values), "p50": 50, "p90": 90, "p95": 95, "p99": 99}
    assert spread([]) == {}


@pytest.mark.parametrize("requests", [[], [RequestTimes(0.0, ended=1.0, error="[red] gone")]])
def test_a_run_without_successes_has_a_table(requests: list[RequestTimes]) -> None:
    summary = summarize_requests(requests, [])
    found = table(summary, "[title]", "[caption]")
    add_errors(found, summary)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(found)
    for part in ("[title]", "[caption]", "TTFT", "--", *summary["errors"]):
        assert part in capture.get()
