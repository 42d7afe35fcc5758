"""Queue, slots, KV blocks, epochs, and the round-trip time of Redis."""

from __future__ import annotations

from albireo.telemetry import catalogue as metrics
from deploy.observability.panels import (
    SHARE,
    Query,
    Rows,
    lines,
    unit,
    unit_a_second,
)
from deploy.observability.queries import (
    largest,
    mean,
    now,
    quantile,
    rate,
    rate_of_sum,
    rise,
)

WASTED = f"{rate(metrics.WASTED_ROWS)} / {rate_of_sum(metrics.STEP_ROWS)}"

ROWS: Rows = {
    "Queue and slots": [
        lines(
            "Queue by tenant",
            unit(metrics.QUEUE_DEPTH),
            metrics.QUEUE_DEPTH.description,
            Query(now(metrics.QUEUE_DEPTH, "tenant"), "{{tenant}}"),
            stacked=True,
        ),
        lines(
            "Running and waiting",
            unit(metrics.RUNNING),
            f"Running: {metrics.RUNNING.description} Waiting: {metrics.WAITING.description}",
            Query(now(metrics.RUNNING), "running"),
            Query(now(metrics.WAITING), "waiting"),
        ),
        lines(
            "Slots",
            unit(metrics.SLOTS_USED),
            metrics.SLOTS_USED.description,
            Query(now(metrics.SLOTS_USED), "used"),
            Query(now(metrics.SLOTS_TOTAL), "of", "#888888"),
        ),
    ],
    "KV blocks and the prefix cache": [
        lines(
            "KV blocks",
            unit(metrics.KV_USED),
            f"Used: {metrics.KV_USED.description} Cached: {metrics.KV_CACHED.description}",
            Query(now(metrics.KV_USED), "used"),
            Query(now(metrics.KV_CACHED), "cached"),
            Query(now(metrics.KV_TOTAL), "of", "#888888"),
        ),
        lines(
            "Prompt tokens not computed",
            SHARE,
            metrics.PREFIX_HIT_TOKENS.description,
            Query(f"{rate(metrics.PREFIX_HIT_TOKENS)} / {rate(metrics.PROMPT_TOKENS)}", "of all"),
        ),
        lines(
            "Preemptions",
            unit_a_second(metrics.PREEMPTIONS),
            metrics.PREEMPTIONS.description,
            Query(rate(metrics.PREEMPTIONS), "preemptions"),
        ),
    ],
    "Work": [
        lines(
            "Tokens",
            unit_a_second(metrics.OUTPUT_TOKENS),
            "Prompt tokens at admission, and output tokens of steps.",
            Query(rate(metrics.PROMPT_TOKENS), "prompts"),
            Query(rate(metrics.PREFIX_HIT_TOKENS), "of these, not computed"),
            Query(rate(metrics.OUTPUT_TOKENS), "output"),
        ),
        lines(
            "Wasted and late rows",
            unit_a_second(metrics.WASTED_ROWS),
            f"Wasted: {metrics.WASTED_ROWS.description} Late: {metrics.LATE_ROWS.description}",
            Query(rate(metrics.WASTED_ROWS), "wasted"),
            Query(rate(metrics.LATE_ROWS), "late"),
        ),
        lines(
            "Wasted, of all decoding rows", SHARE, metrics.WASTED_ROWS.description, Query(WASTED, "wasted")
        ),
    ],
    "Plans and logs": [
        lines(
            "Plans ahead",
            unit(metrics.LOOK_AHEAD),
            f"Look-ahead: {metrics.LOOK_AHEAD.description} In flight: {metrics.STEPS_IN_FLIGHT.description}",
            Query(largest(metrics.LOOK_AHEAD, "albireo_group"), "look-ahead {{albireo_group}}"),
            Query(now(metrics.STEPS_IN_FLIGHT, "albireo_group"), "in flight {{albireo_group}}"),
        ),
        lines(
            "Inbox",
            unit(metrics.INBOX_BACKLOG),
            metrics.INBOX_BACKLOG.description,
            Query(now(metrics.INBOX_BACKLOG, "albireo_group"), "{{albireo_group}}"),
        ),
        lines(
            "Redis round trip, p99 by service",
            "s",
            metrics.REDIS_ROUND_TRIP.description,
            Query(quantile(0.99, metrics.REDIS_ROUND_TRIP, "service_name"), "{{service_name}}"),
            Query(mean(metrics.REDIS_ROUND_TRIP, "service_name"), "{{service_name}}, mean"),
        ),
    ],
    "Epochs": [
        lines(
            "Epoch",
            "none",
            metrics.EPOCH.description,
            Query(largest(metrics.EPOCH, "albireo_group"), "{{albireo_group}}"),
        ),
        lines(
            "Epochs opened, in the time shown",
            "none",
            "By the number that Redis keeps: a scheduler that starts again is one, a group that does is two.",
            Query(rise(metrics.EPOCH, "albireo_group"), "{{albireo_group}}"),
        ),
        lines(
            "Why, since the scheduler's process began",
            "none",
            f"{metrics.EPOCHS.description} Failovers: {metrics.FAILOVERS.description}",
            Query(now(metrics.EPOCHS, "reason"), "epochs: {{reason}}"),
            Query(now(metrics.FAILOVERS, "reason"), "failovers: {{reason}}"),
        ),
    ],
}
