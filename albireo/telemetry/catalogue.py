"""Every metric, declared once: name and unit as in OpenTelemetry, description, and the tier that exports it.
Those of KV tiers are in :mod:`albireo.telemetry.tier_metrics`.

Tiers make their instruments from it. ``docs/metrics.md`` and the dashboards are generated from it, and alert
rules are checked against it.
"""

from __future__ import annotations

from albireo.telemetry import tier_metrics
from albireo.telemetry.metric import GPU, Kind, Metrics, Tier
from albireo.telemetry.step_times import BOUNDS as STEP_SECONDS_BOUNDS

# Those of the GenAI semantic conventions.
REQUEST_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
OUTPUT_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
ROWS = tuple(float(2**power) for power in range(13))
GEN_AI = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model")

METRICS = Metrics()
"""All of them, in the order of the documentation: those of KV tiers come last."""

_add = METRICS.add
_COUNTER, _UP_DOWN, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.UP_DOWN, Kind.GAUGE, Kind.HISTOGRAM

# -- gateway ------------------------------------------------------------------------------------------------
_TIER = Tier.GATEWAY
REQUEST_DURATION = _add(
    "gen_ai.server.request.duration", _HISTOGRAM, "s", _TIER,
    "Time from a request's arrival to its last event.", *GEN_AI, "error.type", buckets=REQUEST_SECONDS,
)  # fmt: skip
TIME_TO_FIRST_TOKEN = _add(
    "gen_ai.server.time_to_first_token", _HISTOGRAM, "s", _TIER,
    "Time from a request's arrival to its first token, of requests that succeed.",
    *GEN_AI, buckets=FIRST_TOKEN_SECONDS,
)  # fmt: skip
TIME_PER_OUTPUT_TOKEN = _add(
    "gen_ai.server.time_per_output_token", _HISTOGRAM, "s", _TIER,
    "Mean time per token of a request, after the first, of requests that succeed.",
    *GEN_AI, buckets=OUTPUT_TOKEN_SECONDS,
)  # fmt: skip
REQUESTS = _add(
    "albireo.gateway.requests", _COUNTER, "{request}", _TIER, "Generate calls that have ended.", "status"
)
STREAMS = _add(
    "albireo.gateway.streams", _UP_DOWN, "{stream}", _TIER,
    "Generate calls that are open.", "gen_ai.request.model",
)  # fmt: skip
BOUND_HITS = _add(
    "albireo.gateway.bound_hits", _COUNTER, "{call}", _TIER,
    "Calls that a limit of the gateway refused or ended.", "bound",
)  # fmt: skip
TOKENS = _add(
    "albireo.gateway.tokens", _COUNTER, "{token}", _TIER,
    "Tokens of accepted prompts and of answers sent, counted at the end of a request.", "gen_ai.token.type",
)  # fmt: skip
RESULTS_LAG = _add(
    "albireo.gateway.results.lag", _HISTOGRAM, "s", _TIER,
    "Time from the end of a step's sampling until its rows have reached their streams, by two machines' "
    "clocks.", buckets=STEP_SECONDS_BOUNDS,
)  # fmt: skip

# -- scheduler: amounts -------------------------------------------------------------------------------------
_TIER, _GROUP = Tier.SCHEDULER, "albireo.group"
QUEUE_DEPTH = _add(
    "albireo.scheduler.queue.depth", _UP_DOWN, "{request}", _TIER,
    "Requests that wait for a slot, by tenant.", "tenant",
)  # fmt: skip
SERVICE = _add(
    "albireo.scheduler.service", _COUNTER, "{token}", _TIER,
    "Service that tenants were charged for in fair shares: weighted tokens.", "tenant",
)  # fmt: skip
WAITING = _add("albireo.scheduler.waiting", _UP_DOWN, "{request}", _TIER, "Requests that wait for a slot.")
PREDICTED_WAIT = _add(
    "albireo.scheduler.predicted_wait", _GAUGE, "s", _TIER,
    "Time for which a request that arrives now is expected to wait for a slot, by the recent rate at which "
    "requests left the queue; absent where none has left it.",
)  # fmt: skip
GROUPS = _add("albireo.scheduler.groups", _UP_DOWN, "{group}", _TIER, "Groups that the scheduler leads.")
HEARTBEAT_AGE = _add(
    "albireo.scheduler.group.heartbeat_age", _GAUGE, "s", _TIER,
    "Age of the last heartbeat of that rank of a group whose heartbeat is the oldest, pauses left out.",
    _GROUP,
)  # fmt: skip
RUNNING = _add(
    "albireo.scheduler.running", _UP_DOWN, "{request}", _TIER,
    "Requests that have a slot and have not ended.", _GROUP,
)  # fmt: skip
SLOTS_USED = _add(
    "albireo.scheduler.slots.used", _UP_DOWN, "{slot}", _TIER,
    "Slots in use, those still to be released included.", _GROUP,
)  # fmt: skip
SLOTS_TOTAL = _add("albireo.scheduler.slots.total", _UP_DOWN, "{slot}", _TIER, "Slots.", _GROUP)
KV_USED = _add(
    "albireo.scheduler.kv.blocks.used", _UP_DOWN, "{block}", _TIER,
    "KV blocks, of 16 tokens each, that requests hold.", _GROUP,
)  # fmt: skip
KV_CACHED = _add(
    "albireo.scheduler.kv.blocks.cached", _UP_DOWN, "{block}", _TIER,
    "KV blocks in the prefix cache, held by requests or not.", _GROUP,
)  # fmt: skip
KV_TOTAL = _add("albireo.scheduler.kv.blocks.total", _UP_DOWN, "{block}", _TIER, "KV blocks.", _GROUP)
STEPS_IN_FLIGHT = _add(
    "albireo.scheduler.steps.in_flight", _UP_DOWN, "{step}", _TIER,
    "Steps whose plan is published and whose result is not settled.", _GROUP,
)  # fmt: skip
STEP_SECONDS = _add(
    "albireo.scheduler.step_time", _GAUGE, "s", _TIER,
    "Forward and sampling of a decoding step, a mean of recent steps, by which requests are placed.", _GROUP,
)  # fmt: skip
LOOK_AHEAD = _add(
    "albireo.scheduler.look_ahead", _GAUGE, "{plan}", _TIER,
    "Plans published ahead of the running step.", _GROUP,
)  # fmt: skip
INBOX_BACKLOG = _add(
    "albireo.scheduler.inbox.backlog", _UP_DOWN, "{entry}", _TIER,
    "Submissions and cancellations that the scheduler has not read yet.",
)  # fmt: skip
EPOCH = _add("albireo.scheduler.epoch", _GAUGE, "{epoch}", _TIER, "Number of the current epoch.")

# -- scheduler: totals --------------------------------------------------------------------------------------
PROMPT_TOKENS = _add(
    "albireo.scheduler.prompt_tokens", _COUNTER, "{token}", _TIER,
    "Prompt tokens of requests, counted at their first admission.", _GROUP,
)  # fmt: skip
PREFIX_HIT_TOKENS = _add(
    "albireo.scheduler.prefix_hit_tokens", _COUNTER, "{token}", _TIER,
    "Prompt tokens that need not be computed: the prefix cache or another branch has them.", _GROUP,
)  # fmt: skip
OUTPUT_TOKENS = _add(
    "albireo.scheduler.output_tokens", _COUNTER, "{token}", _TIER,
    "Tokens of settled steps, of requests that had not ended.", _GROUP,
)  # fmt: skip
PREEMPTIONS = _add(
    "albireo.scheduler.preemptions", _COUNTER, "{preemption}", _TIER,
    "Requests that lost their slot and blocks, and are computed again later.", _GROUP,
)  # fmt: skip
WASTED_ROWS = _add(
    "albireo.scheduler.wasted_rows", _COUNTER, "{row}", _TIER,
    "Rows planned after a request's last one, whose end was not known yet.", _GROUP,
)  # fmt: skip
LATE_ROWS = _add(
    "albireo.scheduler.late_rows", _COUNTER, "{row}", _TIER,
    "Rows of results that were dropped because their request had ended.", _GROUP,
)  # fmt: skip
STEPS = _add("albireo.scheduler.steps", _COUNTER, "{step}", _TIER, "Steps that have settled.", _GROUP)
GROUP_CLOSINGS = _add(
    "albireo.scheduler.group_closings", _COUNTER, "{group}", _TIER,
    "Groups that the scheduler led and does not lead any more.", "reason",
)  # fmt: skip
MOVED_REQUESTS = _add(
    "albireo.scheduler.moved_requests", _COUNTER, "{request}", _TIER,
    "Requests that ran on a group, or were about to, when it was closed, and waited for another one.",
)  # fmt: skip
EPOCHS = _add("albireo.scheduler.epochs", _COUNTER, "{epoch}", _TIER, "Epochs that this process opened.")
FAILOVERS = _add(
    "albireo.scheduler.failovers", _COUNTER, "{failover}", _TIER,
    "Epochs opened where another scheduler, or an earlier process of this one, had one.",
)  # fmt: skip

# -- scheduler: steps, with the times of albireo/telemetry/step_times.py ---------------------------------
STEP_TASK = _add(
    "albireo.step.task", _HISTOGRAM, "s", _TIER,
    "Duration of a task of a decoding step, hidden by the overlap or not.",
    "task", _GROUP, buckets=STEP_SECONDS_BOUNDS,
)  # fmt: skip
STEP_TASK_VISIBLE = _add(
    "albireo.step.task.visible", _HISTOGRAM, "s", _TIER,
    "Part of a task's duration that delayed the next forward (t1, t2, t5).",
    "task", _GROUP, buckets=STEP_SECONDS_BOUNDS,
)  # fmt: skip
STEP_VISIBLE = _add(
    "albireo.step.visible", _HISTOGRAM, "s", _TIER,
    "Time by which all tasks together delayed the next forward.", _GROUP, buckets=STEP_SECONDS_BOUNDS,
)  # fmt: skip
STEP_PERIOD = _add(
    "albireo.step.period", _HISTOGRAM, "s", _TIER,
    "Time from the start of one decoding step's forward to the start of the next.",
    _GROUP, buckets=STEP_SECONDS_BOUNDS,
)  # fmt: skip
STEP_PLAN_AGE = _add(
    "albireo.step.plan_age", _HISTOGRAM, "s", _TIER,
    "Time for which a plan had been in the log when rank 0 fetched it.",
    _GROUP, buckets=STEP_SECONDS_BOUNDS,
)  # fmt: skip
STEP_PLAN_WAIT = _add(
    "albireo.step.plan_wait", _HISTOGRAM, "s", _TIER,
    "Time for which rank 0 idled before it had the plan of a step with decoding rows; 0: it had it already.",
    _GROUP, buckets=STEP_SECONDS_BOUNDS,
)  # fmt: skip
STEP_ROWS = _add(
    "albireo.step.rows", _HISTOGRAM, "{row}", _TIER,
    "Batch size: decoding rows of a step.", _GROUP, buckets=ROWS,
)  # fmt: skip
STEP_PREFILL = _add(
    "albireo.step.prefill_tokens", _COUNTER, "{token}", _TIER,
    "Tokens of the prefill chunks that steps computed.", _GROUP,
)  # fmt: skip

# -- worker -------------------------------------------------------------------------------------------------
_TIER = Tier.WORKER
WORKER_STEPS = _add("albireo.worker.steps", _COUNTER, "{step}", _TIER, "Steps that this rank has run.")
STEP_AGE = _add(
    "albireo.worker.step.age",
    _GAUGE,
    "s",
    _TIER,
    "Age of the oldest running step; 0 where none runs.",
)
WORKER_KV_BLOCKS = _add(
    "albireo.worker.kv.blocks", _UP_DOWN, "{block}", _TIER, "KV blocks that this rank has memory for."
)
WORKER_KV_MEMORY = _add("albireo.worker.kv.memory", _UP_DOWN, "By", _TIER, "Memory of this rank's KV blocks.")
STAGING_WAIT = _add(
    "albireo.worker.staging.wait", _COUNTER, "s", _TIER,
    "Time for which the input stage waited for a free staging buffer.", needs=GPU,
)  # fmt: skip
GPU_UTILIZATION = _add(
    "albireo.gpu.utilization", _GAUGE, "1", _TIER,
    "Share of time in which the GPU ran a kernel, 0 to 1, as sampled by the driver.", needs=GPU,
)  # fmt: skip
GPU_POWER = _add("albireo.gpu.power", _GAUGE, "W", _TIER, "Present power of the GPU.", needs=GPU)
GPU_ENERGY = _add(
    "albireo.gpu.energy", _COUNTER, "J", _TIER,
    "Energy that the GPU has used. Divided by output tokens: energy per token.", needs=GPU,
)  # fmt: skip

# -- every tier ---------------------------------------------------------------------------------------------
REDIS_ROUND_TRIP = _add(
    "albireo.redis.round_trip", _HISTOGRAM, "s", Tier.ALL,
    "Round-trip time of a command to Redis, of a few periodic commands a second.",
    buckets=STEP_SECONDS_BOUNDS,
)  # fmt: skip

METRICS.extend(tier_metrics.METRICS)
