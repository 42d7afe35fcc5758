"""The figures of a load run, from records whose figures are known."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from bench.serve.load import Record
from bench.serve.report import summarize, table


def record(sent: float, *arrivals: tuple[float, int], ended: float, error: str = "") -> Record:
    return Record(sent, list(arrivals), ended, error)


def test_the_figures_of_two_requests() -> None:
    found = summarize(
        [
            record(10.0, (10.5, 1), (10.7, 1), (11.1, 2), ended=11.1),  # 4 tokens: 0.5 s, then 0.6 s
            record(11.0, (12.0, 1), ended=12.0),  # one token has no time per output token
        ]
    )
    assert (found["requests"], found["output_tokens"], found["errors"]) == (2, 5, {})
    assert found["seconds"] == pytest.approx(2.0)
    assert found["requests_per_second"] == pytest.approx(1.0)
    assert found["output_tokens_per_second"] == pytest.approx(2.5)
    assert found["ttft"]["mean"] == pytest.approx(0.75)
    assert found["ttft"]["p50"] == pytest.approx(0.75)
    assert found["tpot"]["mean"] == pytest.approx(0.2)
    assert found["inter_token"]["mean"] == pytest.approx(0.2)  # 0.2 once, and 0.4 spread over two tokens
    assert found["end_to_end"]["mean"] == pytest.approx(1.05)


def test_percentiles_are_those_of_the_requests() -> None:
    records = [record(0.0, (n / 100, 1), ended=n / 100) for n in range(1, 102)]
    ttft = summarize(records)["ttft"]
    assert [ttft[p] for p in ("p50", "p90", "p95", "p99")] == pytest.approx([0.51, 0.91, 0.96, 1.0])


def test_failures_are_counted_and_kept_out_of_the_latencies() -> None:
    found = summarize(
        [
            record(0.0, (1.0, 1), ended=1.0),
            record(0.0, (0.1, 3), ended=0.2, error="UNAVAILABLE: gone"),
            record(0.0, ended=0.1, error="UNAVAILABLE: gone"),
            record(0.0, ended=0.1, error="RESOURCE_EXHAUSTED: full"),
        ]
    )
    assert found["errors"] == {"UNAVAILABLE: gone": 2, "RESOURCE_EXHAUSTED: full": 1}
    assert found["output_tokens"] == 1
    assert found["ttft"]["p99"] == pytest.approx(1.0)


@pytest.mark.parametrize("records", [[], [Record(0.0, [], 0.5, "UNAVAILABLE: gone")]])
def test_a_run_in_which_nothing_succeeded_can_be_told(records: list[Record]) -> None:
    found = summarize(records)
    assert found["ttft"] == {}
    assert found["output_tokens_per_second"] == 0
    assert "TTFT" in shown(found)
    json.dumps(found)


def test_the_table_shows_milliseconds_throughput_and_failures() -> None:
    ok = record(0.0, (0.25, 1), (0.5, 1), ended=0.5)
    text = shown(summarize([ok, record(0.0, ended=0.1, error="UNAVAILABLE: gone")]))
    for part in ("TTFT", "250.0", "TPOT", "inter-token", "p50", "p99", "output tokens/s", "4.0", "gone"):
        assert part in text


def shown(summary: dict[str, object]) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table(summary, "title"))
    return capture.get()
