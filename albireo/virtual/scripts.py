"""What the Lua scripts of :mod:`albireo.store.scripts` do, on a keyspace in memory: the same verdicts.

Each function is the script of its name. Nothing else runs in between, since nothing here waits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from albireo.contract.keys import Keys
from albireo.store.interface import TenantReport
from albireo.store.scripts import QUEUE_RATIO
from albireo.virtual.keyspace import Keyspace, RequestRecord

Verdict = Literal["accepted", "conflict", "duplicate", "full", "no_gateway", "no_scheduler"]
Quota = Literal["max_requests", "queue_share", "tokens_per_minute"]
MINUTE_MS = 60_000


class Claim(NamedTuple):
    """What a submission takes of its tenant's quotas, which are 0 where there is none."""

    tenant: str
    max_requests: int
    queue_places: int
    tokens_per_minute: int
    tokens: int


def submit(
    space: Keyspace,
    keys: Keys,
    *,
    request_id: str,
    digest: str,
    entry: bytes,
    queue_bound: int,
    record_ttl: float,
    branches: int,
    gateway: str,
    cancellation: bytes,
    claim: Claim,
) -> tuple[Verdict, int] | tuple[Quota, int, int]:
    """Verdict and current epoch; with a quota that it exceeds, the milliseconds until it allows the request.
    ``record_ttl``: seconds for which the request's id stays taken."""
    epoch = space.number(keys.epoch)
    key = keys.request(request_id)
    seen = space.record(key)
    orphan = seen is not None and seen.gateway is not None and space.get(keys.gateway(seen.gateway)) is None
    if seen is not None and not orphan:
        if seen.digest != digest:
            return "conflict", epoch
        if seen.epoch >= epoch:
            return "duplicate", epoch
    if space.get(keys.gateway(gateway)) is None:
        return "no_gateway", epoch
    if space.get(keys.lease) is None:
        return "no_scheduler", epoch
    exceeded = _exceeded(space, keys, claim, branches)
    if exceeded is not None:
        return exceeded[0], epoch, exceeded[1]
    waiting = space.number(keys.waiting) + branches
    own = min(waiting, _count(space, keys, f"waiting:{claim.tenant}") + branches)
    if own > QUEUE_RATIO * (queue_bound + math.ceil(queue_bound / QUEUE_RATIO) - waiting):
        return "full", epoch
    space.set(keys.waiting, b"%d" % waiting)
    for field in ("live", "waiting"):
        _add(space, keys, f"{field}:{claim.tenant}", branches)
    if claim.tokens_per_minute:
        _book(space, keys, claim.tenant, claim.tokens * MINUTE_MS / claim.tokens_per_minute)
    if seen is not None and orphan and seen.cancellation is not None:
        space.append_now(keys.inbox, seen.cancellation)
    space.append_now(keys.inbox, entry)
    space.set_record(key, RequestRecord(digest, epoch, gateway, cancellation), ttl=record_ttl)
    return "accepted", epoch


def _exceeded(space: Keyspace, keys: Keys, claim: Claim, branches: int) -> tuple[Quota, int] | None:
    """The quota that does not allow a submission, and in how many milliseconds it does; 0: not known."""
    most: tuple[tuple[Quota, str, int], ...] = (
        ("max_requests", "live", claim.max_requests),
        ("queue_share", "waiting", claim.queue_places),
    )
    for quota, field, limit in most:
        if limit and _count(space, keys, f"{field}:{claim.tenant}") + branches > limit:
            return quota, 0
    if claim.tokens_per_minute:
        cost = claim.tokens * MINUTE_MS / claim.tokens_per_minute
        wait = _free_in(space, keys, claim.tenant) + min(cost, MINUTE_MS) - MINUTE_MS
        if wait > 0:
            return "tokens_per_minute", math.ceil(wait)
    return None


def report(
    space: Keyspace, keys: Keys, reports: Mapping[str, TenantReport], *, epoch: int, number: int
) -> None:
    """What departed and ended, and which tokens were used, since the last report of this epoch."""
    counts = space.hash(keys.tenants)
    if space.get(keys.epoch) != b"%d" % epoch or int(counts.get(b"reports", 0)) >= number:
        return
    counts[b"reports"] = b"%d" % number
    for tenant, (departed, ended, cost_ms) in reports.items():
        _add(space, keys, f"waiting:{tenant}", -departed)
        _add(space, keys, f"live:{tenant}", -ended)
        if cost_ms:
            _book(space, keys, tenant, cost_ms)


def _count(space: Keyspace, keys: Keys, field: str) -> int:
    """A count of a tenant."""
    return int(space.hash(keys.tenants).get(field.encode(), 0))


def _add(space: Keyspace, keys: Keys, field: str, count: int) -> None:
    """Changes a count of a tenant; a field of 0 is removed."""
    counts, name = space.hash(keys.tenants), field.encode()
    value = int(counts.pop(name, 0)) + count
    if value > 0:
        counts[name] = b"%d" % value


def _free_in(space: Keyspace, keys: Keys, tenant: str) -> float:
    """Milliseconds until all tokens of a tenant's minute are free."""
    return max(0.0, float(space.get(keys.tokens(tenant)) or 0) - _now_ms(space))


def _book(space: Keyspace, keys: Keys, tenant: str, cost_ms: float) -> None:
    """Uses tokens of a tenant's minute."""
    free_in = max(1.0, _free_in(space, keys, tenant) + cost_ms)
    space.set(keys.tokens(tenant), b"%.4f" % (_now_ms(space) + free_in), ttl=free_in / 1000)


def _now_ms(space: Keyspace) -> int:
    return space.clock.time_ns() // 1_000_000


def end(space: Keyspace, keys: Keys, *, request_id: str, cancellation: bytes) -> None:
    """The request of this cancellation has ended; its id stays taken."""
    record = space.record(keys.request(request_id))
    if record is not None and record.cancellation == cancellation:
        record.cancellation = record.gateway = None


def cancel(space: Keyspace, keys: Keys, *, request_id: str) -> int:
    """Cancels a request unless it is known to be over: 1; 0 where there is none, -1 without a scheduler."""
    record = space.record(keys.request(request_id))
    if record is None or record.cancellation is None or record.epoch < space.number(keys.epoch):
        return 0
    if space.get(keys.lease) is None:
        return -1
    space.append_now(keys.inbox, record.cancellation)
    return 1


def drop(space: Keyspace, keys: Keys, *, cancellation: bytes) -> None:
    """Cancels what a gateway submitted itself; without a scheduler there is nothing to cancel."""
    if space.get(keys.lease) is not None:
        space.append_now(keys.inbox, cancellation)


def withdraw(space: Keyspace, keys: Keys, *, request_id: str, cancellation: bytes) -> None:
    """Cancels a submission that may have been accepted, and frees its id."""
    record = space.record(keys.request(request_id))
    if record is not None and record.cancellation == cancellation:
        space.delete_record(keys.request(request_id))
    drop(space, keys, cancellation=cancellation)


def depart(space: Keyspace, keys: Keys, *, epoch: int, total: int) -> None:
    """``total`` requests have left the queue since the epoch opened."""
    if space.get(keys.epoch) != b"%d" % epoch:
        return
    new = total - space.number(keys.departed)
    if new > 0:
        space.set(keys.departed, b"%d" % total)
        space.set(keys.waiting, b"%d" % max(0, space.number(keys.waiting) - new))


def take(space: Keyspace, key: str, value: bytes, *, ttl: float) -> int:
    """Takes an expiring key, or keeps it alive: 0 if another holds it, 1 if it was free, 2 if it was ours."""
    holder = space.get(key)
    if holder is not None and holder != value:
        return 0
    space.set(key, value, ttl=ttl)
    return 1 if holder is None else 2


def renew(space: Keyspace, keys: Keys, key: str, value: bytes, *, ttl: float, least_epoch: int) -> int:
    """Keeps an expiring key alive, or takes it again: the epoch opened last, or -1 where the key is lost."""
    holder = space.get(key)
    epoch = space.number(keys.epoch)
    if (holder is not None and holder != value) or (holder is None and epoch < least_epoch):
        return -1
    space.set(key, value, ttl=ttl)
    return epoch


def release(space: Keyspace, key: str, value: bytes) -> None:
    """Deletes a key that still holds our value."""
    if space.get(key) == value:
        space.delete(key)
