"""Where the time of decoding steps goes, and which part of it is hidden."""

from __future__ import annotations

from albireo.telemetry import catalogue as metrics
from albireo.telemetry import tier_metrics
from deploy.observability.panels import (
    COLORS,
    SHARE,
    Query,
    Rows,
    bars,
    heat,
    lines,
    number,
    quantiles,
    unit,
    unit_a_second,
)
from deploy.observability.queries import (
    RANGE,
    buckets,
    largest,
    mean,
    now,
    quantile,
    rate,
    rate_of_sum,
)

TASKS = {"t1": "T1 schedule", "t2": "T2 input", "t3": "T3 forward", "t4": "T4 sampling", "t5": "T5 output"}
VISIBLE = ("t1", "t2", "t5")
RANK = ("albireo_group", "albireo_rank")
RANK_NAME = "{{albireo_group}} rank {{albireo_rank}}"
PERIOD = Query(mean(metrics.STEP_PERIOD), "period", "#5794f2", line=True)
VISIBLE_SHARE = f"{rate_of_sum(metrics.STEP_VISIBLE)} / {rate_of_sum(metrics.STEP_PERIOD)}"
ENERGY_PER_TOKEN = f"{rate(metrics.GPU_ENERGY)} / {rate(metrics.OUTPUT_TOKENS)}"


def _full_tasks() -> list[Query]:
    return [
        Query(mean(metrics.STEP_TASK, where=f'task="{task}"'), name, COLORS[task])
        for task, name in TASKS.items()
    ]


def _parts_of_a_step() -> list[Query]:
    """Forward and sampling in full, the visible part of the other tasks: together, the period."""
    found = []
    for task in ("t3", "t4", *VISIBLE):
        metric = metrics.STEP_TASK_VISIBLE if task in VISIBLE else metrics.STEP_TASK
        name = f"{TASKS[task]}, visible" if task in VISIBLE else TASKS[task]
        found.append(Query(mean(metric, where=f'task="{task}"'), name, COLORS[task]))
    return found


def _full_and_visible() -> list[Query]:
    found = []
    for task, name in TASKS.items():
        where = f'task="{task}"'
        found.append(Query(mean(metrics.STEP_TASK, where=where, window=RANGE), name, COLORS[task]))
        if task in VISIBLE:
            visible = mean(metrics.STEP_TASK_VISIBLE, where=where, window=RANGE)
            found.append(Query(visible, f"{name}, visible", COLORS[task]))
    return found


def _hidden_shares() -> list[Query]:
    found = []
    for task in VISIBLE:
        where = f'task="{task}"'
        visible, full = (mean(m, where=where) for m in (metrics.STEP_TASK_VISIBLE, metrics.STEP_TASK))
        found.append(Query(f"1 - ({visible}) / ({full})", TASKS[task], COLORS[task]))
    return found


def _tasks_at_p99() -> list[Query]:
    return [
        Query(quantile(0.99, metrics.STEP_TASK, where=f'task="{task}"'), name, COLORS[task])
        for task, name in TASKS.items()
    ]


ROWS: Rows = {
    "Now": [
        number(
            "Steps", unit_a_second(metrics.STEPS), metrics.STEPS.description, Query(rate(metrics.STEPS), "")
        ),
        number(
            "Rows", unit(metrics.STEP_ROWS), metrics.STEP_ROWS.description, Query(mean(metrics.STEP_ROWS), "")
        ),
        number("Period", "s", metrics.STEP_PERIOD.description, Query(mean(metrics.STEP_PERIOD), "")),
        number("Visible", "s", metrics.STEP_VISIBLE.description, Query(mean(metrics.STEP_VISIBLE), "")),
        number("Visible, of the period", SHARE, metrics.STEP_VISIBLE.description, Query(VISIBLE_SHARE, "")),
        number("Plan wait", "s", metrics.STEP_PLAN_WAIT.description, Query(mean(metrics.STEP_PLAN_WAIT), "")),
    ],
    "The overlap": [
        lines(
            "All tasks in full, stacked",
            "s",
            "Means of a decoding step. What is above the line of the period ran in parallel to other tasks.",
            *_full_tasks(),
            PERIOD,
            stacked=True,
            width=12,
            height=11,
        ),
        lines(
            "Parts of the period",
            "s",
            "Means of a decoding step: forward and sampling, and the parts of other tasks that delayed the "
            "next forward. Together they are the period.",
            *_parts_of_a_step(),
            PERIOD,
            stacked=True,
            width=12,
            height=11,
        ),
        bars(
            "Full and visible, in the time shown",
            "s",
            f"{metrics.STEP_TASK.description} Visible: {metrics.STEP_TASK_VISIBLE.description}",
            *_full_and_visible(),
        ),
        lines(
            "Hidden share of a task",
            SHARE,
            "1 - visible / full, of means.",
            *_hidden_shares(),
        ),
        lines(
            "Visible",
            "s",
            metrics.STEP_VISIBLE.description,
            *quantiles(metrics.STEP_VISIBLE, 0.5, 0.99),
            Query(mean(metrics.STEP_VISIBLE), "mean"),
        ),
    ],
    "Steps and plans": [
        lines(
            "Period",
            "s",
            metrics.STEP_PERIOD.description,
            *quantiles(metrics.STEP_PERIOD, 0.5, 0.99),
            Query(mean(metrics.STEP_PERIOD), "mean"),
        ),
        lines(
            "Tasks in full, p99",
            "s",
            metrics.STEP_TASK.description,
            *_tasks_at_p99(),
        ),
        heat("Period", "s", metrics.STEP_PERIOD.description, buckets(metrics.STEP_PERIOD)),
        lines(
            "Batch",
            unit(metrics.STEP_ROWS),
            metrics.STEP_ROWS.description,
            *quantiles(metrics.STEP_ROWS, 0.5, 0.99),
            Query(mean(metrics.STEP_ROWS), "mean"),
        ),
        lines(
            "Prefill",
            unit_a_second(metrics.STEP_PREFILL),
            metrics.STEP_PREFILL.description,
            Query(rate(metrics.STEP_PREFILL), "prefill"),
        ),
        lines(
            "Plans",
            "s",
            f"Age: {metrics.STEP_PLAN_AGE.description} Wait: {metrics.STEP_PLAN_WAIT.description}",
            Query(mean(metrics.STEP_PLAN_AGE), "age, mean"),
            Query(mean(metrics.STEP_PLAN_WAIT), "wait, mean"),
            Query(quantile(0.99, metrics.STEP_PLAN_WAIT), "wait, p99"),
        ),
    ],
    "Ranks": [
        lines(
            "Steps by rank",
            unit_a_second(metrics.WORKER_STEPS),
            metrics.WORKER_STEPS.description,
            Query(rate(metrics.WORKER_STEPS, *RANK), RANK_NAME),
            Query(rate(metrics.STEPS, "albireo_group"), "settled {{albireo_group}}"),
        ),
        lines(
            "Age of the running step",
            "s",
            metrics.STEP_AGE.description,
            Query(largest(metrics.STEP_AGE, *RANK), RANK_NAME),
        ),
        lines(
            "KV memory",
            unit(metrics.WORKER_KV_MEMORY),
            metrics.WORKER_KV_MEMORY.description,
            Query(now(metrics.WORKER_KV_MEMORY, *RANK), RANK_NAME),
            width=4,
        ),
        lines(
            "KV blocks",
            unit(metrics.WORKER_KV_BLOCKS),
            metrics.WORKER_KV_BLOCKS.description,
            Query(now(metrics.WORKER_KV_BLOCKS, *RANK), RANK_NAME),
            width=4,
        ),
    ],
    "Copies of KV: empty without KV tiers": [
        lines(
            "Time that layers waited for KV",
            SHARE,
            f"Share of the time. {tier_metrics.STEP_KV_WAIT.description}",
            Query(
                rate_of_sum(tier_metrics.STEP_KV_WAIT, "albireo_group", "kv_read"),
                "{{albireo_group}}, {{kv_read}}",
            ),
        ),
        lines(
            "Wait for KV of a step",
            "s",
            tier_metrics.STEP_KV_WAIT.description,
            *quantiles(tier_metrics.STEP_KV_WAIT, 0.5, 0.99),
        ),
        lines(
            "KV copied by rank 0",
            unit_a_second(tier_metrics.STEP_KV_READ),
            f"{tier_metrics.STEP_KV_READ.description} {tier_metrics.STEP_KV_SPILLED.description}",
            Query(rate(tier_metrics.STEP_KV_READ, "kv_tier", "kv_read"), "{{kv_read}} from {{kv_tier}}"),
            Query(rate(tier_metrics.STEP_KV_SPILLED, "kv_tier"), "to {{kv_tier}}"),
        ),
        lines(
            "Blocks that tiers did not take or bring",
            unit_a_second(tier_metrics.WORKER_KV_FAILURES),
            tier_metrics.WORKER_KV_FAILURES.description,
            Query(rate(tier_metrics.WORKER_KV_FAILURES, "kv_tier", "failure"), "{{kv_tier}}: {{failure}}"),
            width=12,
        ),
        lines(
            "The same, by rank",
            unit_a_second(tier_metrics.WORKER_KV_FAILURES),
            tier_metrics.WORKER_KV_FAILURES.description,
            Query(rate(tier_metrics.WORKER_KV_FAILURES, *RANK), RANK_NAME),
            width=12,
        ),
    ],
    "GPUs: empty without GPUs": [
        lines(
            "Utilization",
            unit(metrics.GPU_UTILIZATION),
            metrics.GPU_UTILIZATION.description,
            Query(largest(metrics.GPU_UTILIZATION, *RANK), RANK_NAME),
            width=6,
        ),
        lines(
            "Power",
            unit(metrics.GPU_POWER),
            metrics.GPU_POWER.description,
            Query(largest(metrics.GPU_POWER, *RANK), RANK_NAME),
            width=6,
        ),
        lines(
            "Energy per output token",
            unit(metrics.GPU_ENERGY),
            metrics.GPU_ENERGY.description,
            Query(ENERGY_PER_TOKEN, "all GPUs"),
            width=6,
        ),
        lines(
            "Waits for staging buffers",
            SHARE,
            metrics.STAGING_WAIT.description,
            Query(rate(metrics.STAGING_WAIT, *RANK), RANK_NAME),
            width=6,
        ),
    ],
}
