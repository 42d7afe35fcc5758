"""The metrics of KV tiers, a part of the catalogue."""

from __future__ import annotations

from albireo.telemetry.metric import KV_TIER, Kind, Metrics, Tier
from albireo.telemetry.step_times import BOUNDS

METRICS = Metrics()

_add = METRICS.add
_COUNTER, _UP_DOWN, _HISTOGRAM = Kind.COUNTER, Kind.UP_DOWN, Kind.HISTOGRAM
_GROUP = "albireo.group"
_TIERS = (_GROUP, "kv_tier")

# -- scheduler ----------------------------------------------------------------------------------------------
_TIER = Tier.SCHEDULER
TIER_USED = _add(
    "albireo.scheduler.kv.frames.used", _UP_DOWN, "{frame}", _TIER,
    "Frames of a KV tier that hold a block, as far as the scheduler knows.", *_TIERS, needs=KV_TIER,
)  # fmt: skip
TIER_TOTAL = _add(
    "albireo.scheduler.kv.frames.total", _UP_DOWN, "{frame}", _TIER,
    "Frames of a KV tier: each has room for one block.", *_TIERS, needs=KV_TIER,
)  # fmt: skip
STREAMED_REQUESTS = _add(
    "albireo.scheduler.kv.streamed.requests", _UP_DOWN, "{request}", _TIER,
    "Running requests that are too long for the KV blocks: their layers read the older part of their KV from "
    "a tier.", _GROUP, needs=KV_TIER,
)  # fmt: skip
STREAMED_BLOCKS = _add(
    "albireo.scheduler.kv.streamed.blocks", _UP_DOWN, "{block}", _TIER,
    "Blocks of running requests that are read from frames of a KV tier in each layer.", _GROUP, needs=KV_TIER,
)  # fmt: skip
TIER_HIT_TOKENS = _add(
    "albireo.scheduler.kv.prefix_hit_tokens", _COUNTER, "{token}", _TIER,
    "Prompt tokens that need not be computed, since a KV tier has them: a part of "
    "`albireo.scheduler.prefix_hit_tokens`.", *_TIERS, needs=KV_TIER,
)  # fmt: skip
TIER_FETCHED = _add(
    "albireo.scheduler.kv.blocks.fetched", _COUNTER, "{block}", _TIER,
    "Blocks that plans fetched from a KV tier.", *_TIERS, needs=KV_TIER,
)  # fmt: skip
TIER_SPILLED = _add(
    "albireo.scheduler.kv.blocks.spilled", _COUNTER, "{block}", _TIER,
    "Blocks that plans spilled to a KV tier.", *_TIERS, needs=KV_TIER,
)  # fmt: skip
TIER_LOST = _add(
    "albireo.scheduler.kv.frames.lost", _COUNTER, "{frame}", _TIER,
    "Frames of a KV tier that could not be written, or not be read.", *_TIERS, needs=KV_TIER,
)  # fmt: skip
TIER_FAILED = _add(
    "albireo.scheduler.kv.fetches.failed", _COUNTER, "{fetch}", _TIER,
    "Fetches from a KV tier, and reads of it for streamed requests, that failed, so that the request's "
    "tokens were computed.", *_TIERS, needs=KV_TIER,
)  # fmt: skip
STEP_KV_WAIT = _add(
    "albireo.step.kv.wait", _HISTOGRAM, "s", _TIER,
    "Time for which the layers of a step, all together, waited for KV from a tier: a part of T3. Of steps in "
    "which any waited.", _GROUP, "kv_read", buckets=BOUNDS, needs=KV_TIER,
)  # fmt: skip
STEP_KV_READ = _add(
    "albireo.step.kv.read", _COUNTER, "By", _TIER,
    "KV that rank 0 read from a tier.", *_TIERS, "kv_read", needs=KV_TIER,
)  # fmt: skip
STEP_KV_SPILLED = _add(
    "albireo.step.kv.spilled", _COUNTER, "By", _TIER,
    "KV that rank 0 copied from its blocks to a tier.", *_TIERS, needs=KV_TIER,
)  # fmt: skip

# -- worker -------------------------------------------------------------------------------------------------
_TIER = Tier.WORKER
WORKER_KV_FAILURES = _add(
    "albireo.worker.kv.failures", _COUNTER, "{block}", _TIER,
    "Blocks that a KV tier of this rank did not take, or did not bring, by reason.",
    "kv_tier", "failure", needs=KV_TIER,
)  # fmt: skip
