"""Queue, slots, KV blocks, epochs, and the round-trip time of Redis."""

from __future__ import annotations

from albireo.telemetry import catalogue as metrics
from albireo.telemetry import tier_metrics
from deploy.observability.panels import (
    SHARE,
    Query,
    Rows,
    lines,
    unit,
    unit_a_second,
)
from deploy.observability.queries import (
    GROUP,
    KV_TIER,
    MODEL,
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
            "Service by tenant",
            unit_a_second(metrics.SERVICE),
            metrics.SERVICE.description,
            Query(rate(metrics.SERVICE, "tenant"), "{{tenant}}"),
            stacked=True,
        ),
        lines(
            "Running and waiting",
            unit(metrics.RUNNING),
            f"Running: {metrics.RUNNING.description} Waiting: {metrics.WAITING.description}",
            Query(now(metrics.RUNNING, GROUP), "running on {{albireo_group}}"),
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
    "Groups": [
        lines(
            "Groups",
            unit(metrics.GROUPS),
            f"{metrics.GROUPS.description} Closings: {metrics.GROUP_CLOSINGS.description}",
            Query(now(metrics.GROUPS), "led"),
            Query(now(metrics.GROUP_CLOSINGS, "reason"), "closed: {{reason}}"),
        ),
        lines(
            "Heartbeats",
            "s",
            metrics.HEARTBEAT_AGE.description,
            Query(largest(metrics.HEARTBEAT_AGE, GROUP), "{{albireo_group}}"),
        ),
        lines(
            "Step time by group",
            "s",
            metrics.STEP_SECONDS.description,
            Query(largest(metrics.STEP_SECONDS, GROUP), "{{albireo_group}}"),
        ),
        lines(
            "Output by group",
            unit_a_second(metrics.OUTPUT_TOKENS),
            metrics.OUTPUT_TOKENS.description,
            Query(rate(metrics.OUTPUT_TOKENS, GROUP), "{{albireo_group}}"),
            stacked=True,
        ),
        lines(
            "Predicted wait",
            "s",
            metrics.PREDICTED_WAIT.description,
            Query(largest(metrics.PREDICTED_WAIT), "wait"),
        ),
        lines(
            "Moved requests",
            unit_a_second(metrics.MOVED_REQUESTS),
            metrics.MOVED_REQUESTS.description,
            Query(rate(metrics.MOVED_REQUESTS), "moved"),
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
    "KV tiers": [
        lines(
            "Frames",
            unit(tier_metrics.TIER_USED),
            tier_metrics.TIER_USED.description,
            Query(now(tier_metrics.TIER_USED, KV_TIER), "used of {{kv_tier}}"),
            Query(now(tier_metrics.TIER_TOTAL, KV_TIER), "all of {{kv_tier}}"),
        ),
        lines(
            "Blocks fetched and spilled",
            unit_a_second(tier_metrics.TIER_FETCHED),
            f"{tier_metrics.TIER_FETCHED.description} {tier_metrics.TIER_SPILLED.description}",
            Query(rate(tier_metrics.TIER_FETCHED, KV_TIER), "fetched from {{kv_tier}}"),
            Query(rate(tier_metrics.TIER_SPILLED, KV_TIER), "spilled to {{kv_tier}}"),
        ),
        lines(
            "Prompt tokens fetched",
            SHARE,
            tier_metrics.TIER_HIT_TOKENS.description,
            Query(
                f"{rate(tier_metrics.TIER_HIT_TOKENS, KV_TIER)} / ignoring (kv_tier) group_left "
                f"{rate(metrics.PROMPT_TOKENS)}",
                "from {{kv_tier}}, of all",
            ),
        ),
        lines(
            "Streamed requests",
            unit(tier_metrics.STREAMED_REQUESTS),
            tier_metrics.STREAMED_REQUESTS.description,
            Query(now(tier_metrics.STREAMED_REQUESTS, GROUP), "{{albireo_group}}"),
        ),
        lines(
            "Streamed blocks",
            unit(tier_metrics.STREAMED_BLOCKS),
            tier_metrics.STREAMED_BLOCKS.description,
            Query(now(tier_metrics.STREAMED_BLOCKS, GROUP), "{{albireo_group}}"),
        ),
        lines(
            "What tiers failed to bring",
            "none",
            f"{tier_metrics.TIER_LOST.description} {tier_metrics.TIER_FAILED.description}",
            Query(now(tier_metrics.TIER_LOST, KV_TIER), "frames of {{kv_tier}}"),
            Query(now(tier_metrics.TIER_FAILED, KV_TIER), "fetches from {{kv_tier}}"),
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
            Query(largest(metrics.LOOK_AHEAD, GROUP), "look-ahead {{albireo_group}}"),
            Query(now(metrics.STEPS_IN_FLIGHT, GROUP), "in flight {{albireo_group}}"),
        ),
        lines(
            "Inbox",
            unit(metrics.INBOX_BACKLOG),
            metrics.INBOX_BACKLOG.description,
            Query(now(metrics.INBOX_BACKLOG, MODEL), "{{albireo_model}}"),
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
            Query(largest(metrics.EPOCH, MODEL), "{{albireo_model}}"),
        ),
        lines(
            "Epochs opened, in the time shown",
            "none",
            "By the number that Redis keeps: each scheduler that takes over is one.",
            Query(rise(metrics.EPOCH, MODEL), "{{albireo_model}}"),
        ),
        lines(
            "Since the scheduler's process began",
            "none",
            f"{metrics.EPOCHS.description} Failovers: {metrics.FAILOVERS.description}",
            Query(now(metrics.EPOCHS), "epochs"),
            Query(now(metrics.FAILOVERS), "failovers"),
        ),
    ],
}
