"""The service as clients see it: requests, latencies, tokens."""

from __future__ import annotations

from albireo.telemetry import catalogue as metrics
from deploy.observability.panels import (
    SHARE,
    Query,
    Rows,
    heat,
    lines,
    number,
    quantiles,
    unit,
    unit_a_second,
)
from deploy.observability.queries import (
    buckets,
    mean,
    now,
    quantile,
    rate,
)

INPUT, OUTPUT = 'gen_ai_token_type="input"', 'gen_ai_token_type="output"'
FAILED, SUCCEEDED = 'error_type!=""', 'error_type=""'
NOT_OK = 'status!="OK"'

ROWS: Rows = {
    "Now": [
        number(
            "Requests",
            unit_a_second(metrics.REQUESTS),
            metrics.REQUESTS.description,
            Query(rate(metrics.REQUESTS), ""),
        ),
        number(
            "Not OK",
            SHARE,
            "Share of calls that ended with another status, cancellations included.",
            Query(f"{rate(metrics.REQUESTS, where=NOT_OK)} / {rate(metrics.REQUESTS)}", ""),
        ),
        number(
            "Open streams",
            unit(metrics.STREAMS),
            metrics.STREAMS.description,
            Query(now(metrics.STREAMS), ""),
            decimals=0,
        ),
        number(
            "Output",
            unit_a_second(metrics.TOKENS),
            metrics.TOKENS.description,
            Query(rate(metrics.TOKENS, where=OUTPUT), ""),
            decimals=0,
        ),
        number(
            "TTFT, p50",
            "s",
            metrics.TIME_TO_FIRST_TOKEN.description,
            Query(quantile(0.5, metrics.TIME_TO_FIRST_TOKEN), ""),
        ),
        number(
            "TPOT, p50",
            "s",
            metrics.TIME_PER_OUTPUT_TOKEN.description,
            Query(quantile(0.5, metrics.TIME_PER_OUTPUT_TOKEN), ""),
        ),
    ],
    "Requests": [
        lines(
            "Calls by status",
            unit_a_second(metrics.REQUESTS),
            metrics.REQUESTS.description,
            Query(rate(metrics.REQUESTS, "status"), "{{status}}"),
            stacked=True,
        ),
        lines(
            "Failures",
            unit_a_second(metrics.REQUESTS),
            "Calls that did not end with OK, by operation.",
            Query(
                rate(metrics.REQUEST_DURATION, "gen_ai_operation_name", "error_type", where=FAILED),
                "{{gen_ai_operation_name}} {{error_type}}",
            ),
            stacked=True,
        ),
        lines(
            "Open streams",
            unit(metrics.STREAMS),
            metrics.STREAMS.description,
            Query(now(metrics.STREAMS, "instance"), "{{instance}}"),
            stacked=True,
        ),
        lines(
            "Bounds that were hit",
            unit_a_second(metrics.BOUND_HITS),
            metrics.BOUND_HITS.description,
            Query(rate(metrics.BOUND_HITS, "bound"), "{{bound}}"),
            stacked=True,
        ),
    ],
    "Latency": [
        lines(
            "Time to first token",
            "s",
            metrics.TIME_TO_FIRST_TOKEN.description,
            *quantiles(metrics.TIME_TO_FIRST_TOKEN, 0.5, 0.9, 0.99),
        ),
        lines(
            "Time per output token",
            "s",
            metrics.TIME_PER_OUTPUT_TOKEN.description,
            *quantiles(metrics.TIME_PER_OUTPUT_TOKEN, 0.5, 0.9, 0.99),
        ),
        lines(
            "Duration",
            "s",
            f"{metrics.REQUEST_DURATION.description} Those that failed are left out.",
            *quantiles(metrics.REQUEST_DURATION, 0.5, 0.9, 0.99, where=SUCCEEDED),
        ),
        heat(
            "Time to first token",
            "s",
            metrics.TIME_TO_FIRST_TOKEN.description,
            buckets(metrics.TIME_TO_FIRST_TOKEN),
        ),
        heat(
            "Time per output token",
            "s",
            metrics.TIME_PER_OUTPUT_TOKEN.description,
            buckets(metrics.TIME_PER_OUTPUT_TOKEN),
        ),
        lines(
            "Mean duration by operation",
            "s",
            metrics.REQUEST_DURATION.description,
            Query(mean(metrics.REQUEST_DURATION, "gen_ai_operation_name"), "{{gen_ai_operation_name}}"),
        ),
    ],
    "Tokens and results": [
        lines(
            "Tokens",
            unit_a_second(metrics.TOKENS),
            metrics.TOKENS.description,
            Query(rate(metrics.TOKENS, where=INPUT), "prompts"),
            Query(rate(metrics.TOKENS, where=OUTPUT), "answers"),
        ),
        lines(
            "Tokens of a call",
            "suffix: tokens",
            "Mean, of prompts and of answers.",
            Query(f"{rate(metrics.TOKENS, where=INPUT)} / {rate(metrics.REQUESTS)}", "prompt"),
            Query(f"{rate(metrics.TOKENS, where=OUTPUT)} / {rate(metrics.REQUESTS)}", "answer"),
        ),
        lines(
            "Results lag",
            "s",
            metrics.RESULTS_LAG.description,
            *quantiles(metrics.RESULTS_LAG, 0.5, 0.99),
            Query(mean(metrics.RESULTS_LAG), "mean"),
        ),
    ],
}
