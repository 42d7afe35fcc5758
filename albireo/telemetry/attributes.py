"""The attributes of metrics: what each means, and its values.

``docs/metrics.md`` lists them; the catalogue says which metric has which.
"""

from __future__ import annotations

ATTRIBUTES = {
    "gen_ai.operation.name": "`chat` where messages were given, else `text_completion`",
    "gen_ai.provider.name": "`albireo`",
    "gen_ai.request.model": "the served model",
    "gen_ai.response.model": "the served model",
    "gen_ai.token.type": "`input` or `output`",
    "error.type": "`status` of a request, where that is not `OK`; else absent (empty in Prometheus)",
    "status": "how a request ended, as a gRPC status: `OK`, `CANCELLED`, `DEADLINE_EXCEEDED`, "
    "`RESOURCE_EXHAUSTED`, ...; the status of the last event (a deadline, a cancellation by "
    "`Cancel`, a lost epoch), also where the call itself then ends with `OK`",
    "bound": "`max_arriving`, `message_seconds`: the request did not arrive completely; `calls`, "
    "`health_calls`, `reflection_calls`, `max_streams`: too many calls at once; `work`, `work_seconds`: too "
    "many bytes, or too long a wait, before tokenization; `submission_seconds`, `ending_seconds`: too long a "
    "wait to write to Redis; `write_seconds`: the client did not read; `max_requests`, `queue_share`, "
    "`tokens_per_minute`: a quota of a tenant",
    "tenant": "`default` where the request names none; `other` beyond 32",
    "task": "`t1` schedule, `t2` input, `t3` forward, `t4` sampling, `t5` output",
    "reason": "`left`: the group drained or stopped; deaths: `announcement` (it expired), `heartbeat` (a "
    "rank showed none), `stuck` (all ranks in one collective), `protocol` (an impossible result)",
    "albireo.group": "name of the worker group; `other` beyond 128",
    "failure": "`full`: too many blocks wait to be written; `late`: it took longer than a step waits; "
    "`refused`: the tier does not answer; `dropped`: given up with an epoch or a step; `nan`: KV that is not "
    "finite, not kept; `read`, `write`, `forget`, `index`: errors of the disk; `checksum`: other bytes than "
    "were written; `error`: a defect",
    "kv_read": "what KV is read for: `fetch`, into blocks, once; `stream`, for layers of requests that are "
    "too long for the blocks, anew for each of their rows",
    "kv_tier": "what holds KV below the blocks of a group: `host` (memory), `disk`; `other` beyond 8",
}
"""What each attribute means, and its values."""

RESOURCE = {
    "service.name": "`albireo-gateway`, `albireo-scheduler`, `albireo-worker`",
    "albireo.model": "the served model; of a gateway that of its `--model`",
    "albireo.group": "the worker group, as its operator named it (worker only)",
    "albireo.rank": "rank in its group (worker only)",
}
"""Attributes of a whole process that its Prometheus endpoint repeats as labels of every metric."""
