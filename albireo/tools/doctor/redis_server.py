"""Checks the Redis that holds the logs: whether it answers, supports what is used, and keeps its data."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from albireo.local.redis_server import RedisServerError, find_server
from albireo.runtime.loopback import is_loopback
from albireo.store.connection import connect
from albireo.tools.doctor.finding import Finding, failure, note, ok, size, warning

OLDEST = (6, 2)
"""XTRIM with MINID, by which the scheduler trims the inbox, came with 6.2; all else is older."""
PINGS = 200
SLOW_SECONDS = 1e-3
FULL = 0.8
"""Share of its memory from which a Redis that never evicts is close to refusing writes."""

Info = Mapping[str, Any]


def check_redis(url: str) -> list[Finding]:
    """Connects as the services do, and looks at everything. A password in ``url`` is not shown."""
    shown = address(url)
    try:
        client = connect(url)
    except ValueError as error:
        return [
            failure("redis", f"{shown}: {error}", "ALBIREO_REDIS_URL takes redis://, rediss:// or unix://")
        ]
    with client:
        try:
            info = cast("Info", client.info())
        except RedisError as error:
            return [_unreachable(shown, error)]
        return [
            ok("redis", f"answers at {shown}"),
            version(info),
            role(info),
            access(url, password=bool(client.get_connection_kwargs().get("password"))),
            user(url, client),
            eviction(info),
            memory(info),
            *persistence(info, _config(client, "appendfsync")),
            latency(client),
        ]


def check_own_redis(url: str) -> list[Finding] | None:
    """Where none is configured and none answers at the default ``url``: what `albireo up` would start.

    None where one does answer.
    """
    with connect(url) as client:
        try:
            client.ping()
        except (AuthenticationError, ResponseError):
            return None
        except RedisError:
            pass
        else:
            return None
    try:
        server = find_server()
        run = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except RedisServerError as error:
        return [failure("redis", f"nothing answers at {url}, and there is no server to start", str(error))]
    except (OSError, subprocess.SubprocessError) as error:
        return [failure("redis", f"{server} does not run: {error}", "install redis-server 6.2 or later")]
    number = next((word[2:] for word in run.stdout.split() if word.startswith("v=")), "0")
    return [
        note(
            "redis",
            f"ALBIREO_REDIS_URL is not set and nothing answers at {url}; `albireo up` would start {server}",
            "for services of their own: start a Redis and set ALBIREO_REDIS_URL",
        ),
        version({"redis_version": number}),
    ]


def address(url: str) -> str:
    """A Redis URL without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _unreachable(shown: str, error: RedisError) -> Finding:
    text = str(error)
    if isinstance(error, AuthenticationError) or "NOAUTH" in text or "WRONGPASS" in text:
        return failure(
            "redis",
            f"{shown} needs another password: {text}",
            "give it in ALBIREO_REDIS_URL (redis://:PASSWORD@host:6379/0) or in ALBIREO_REDIS_PASSWORD_FILE",
        )
    if isinstance(error, NoPermissionError):
        return warning(
            "redis",
            f"answers at {shown}, but this user may not ask for INFO",
            "run the doctor with the user admin of deploy/redis/users.acl to check the rest",
        )
    if isinstance(error, ResponseError):
        return failure("redis", f"{shown} refuses INFO: {text}", "look at its log")
    return failure(
        "redis",
        f"{shown} does not answer: {text}",
        "start it, correct ALBIREO_REDIS_URL, or let it listen where this machine can reach it",
    )


def version(info: Info) -> Finding:
    found = str(info["redis_version"])
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        return failure("redis version", found, "at least 6.2 is needed: XTRIM MINID trims the inbox")
    return ok("redis version", found)


def role(info: Info) -> Finding:
    if info.get("loading"):
        return warning("redis role", "still loads its file", "wait: until then every call is refused")
    if info.get("role") == "slave":
        return failure(
            "redis role", "a replica, which takes no writes", "name the primary in ALBIREO_REDIS_URL"
        )
    if info.get("cluster_enabled"):
        return warning(
            "redis role",
            "a node of a cluster",
            "the tiers follow no redirection: this node must have all slots",
        )
    return ok("redis role", "primary")


def access(url: str, *, password: bool) -> Finding:
    """Who can connect. ``password``: whether ``url`` has one; without one it lets everyone in."""
    parts, open_to_all = urlsplit(url), not password
    if parts.scheme == "unix":
        return ok("redis access", "a Unix socket: its permissions decide who may open it")
    local = _is_local(url)
    if open_to_all and not local:
        return warning(
            "redis access",
            "anyone who reaches it can connect without a password",
            "set requirepass (or an ACL user): who can write into the logs decides what clients read",
        )
    if parts.scheme != "rediss" and not local:
        return note(
            "redis access",
            "with a password, in clear text",
            "where the network is not yours alone: TLS, by rediss:// in ALBIREO_REDIS_URL",
        )
    return ok("redis access", "without a password, on loopback" if open_to_all else "with a password")


def user(url: str, client: redis.Redis) -> Finding:
    """Whether tiers share the user that may do everything."""
    try:
        name = str(client.acl_whoami())
    except ResponseError:
        return ok("redis user", "one that may not ask for its name")
    if name != "default":
        return ok("redis user", name)
    if _is_local(url):
        return ok("redis user", "default, on this machine")
    return note(
        "redis user",
        "default, which may do everything",
        "give each tier a user of its own: deploy/redis/users.acl, and the name in ALBIREO_REDIS_URL",
    )


def _is_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "unix" or parts.hostname is None or is_loopback(parts.hostname)


def eviction(info: Info) -> Finding:
    policy, limit = info.get("maxmemory_policy", "unknown"), int(info.get("maxmemory", 0))
    if policy == "noeviction":
        return ok("redis eviction", policy)
    advice = "set maxmemory-policy noeviction: an evicted key is a lost lease, group or log"
    if limit:
        return failure("redis eviction", f"{policy}, from {size(limit)} on", advice)
    return warning("redis eviction", f"{policy}; nothing is evicted as long as maxmemory is 0", advice)


def memory(info: Info) -> Finding:
    used, limit = int(info["used_memory"]), int(info.get("maxmemory", 0))
    machine = int(info.get("total_system_memory", 0))
    whole, name = (limit, "maxmemory") if limit else (machine, "the machine's memory, maxmemory is 0")
    if not whole:
        return note("redis memory", f"{size(used)} used, its limit is not known")
    found = f"{size(used)} used of {size(whole)} ({name})"
    if used > FULL * whole:
        return warning(
            "redis memory",
            found,
            "raise maxmemory, or lower ALBIREO_SCHEDULER_LOG_ENTRIES and ALBIREO_WORKER_LOG_ENTRIES; "
            "once it is full, new requests are refused",
        )
    return ok("redis memory", found)


def persistence(info: Info, fsync: str | None) -> list[Finding]:
    """``fsync``: the setting appendfsync, None where it could not be read."""
    if not info.get("aof_enabled"):
        return [
            failure(
                "redis persistence",
                "no append-only file: a restart empties it or restores its last snapshot",
                "set appendonly yes: accepted requests must outlive a restart",
            )
        ]
    if info.get("aof_last_write_status", "ok") != "ok":
        return [
            failure("redis persistence", "the last write of the append-only file failed", "look at its disk")
        ]
    if fsync is None:
        return [note("redis persistence", "append-only file; CONFIG GET appendfsync is not allowed")]
    if fsync == "no":
        return [
            warning(
                "redis persistence",
                "append-only file, appendfsync no: the kernel writes up to about 30 s late",
                "set appendfsync everysec",
            )
        ]
    lost = "nothing" if fsync == "always" else "about a second"
    return [ok("redis persistence", f"append-only file, appendfsync {fsync}: a machine crash loses {lost}")]


def latency(client: redis.Redis) -> Finding:
    times = []
    for _ in range(PINGS):
        began = time.perf_counter()
        client.ping()
        times.append(time.perf_counter() - began)
    times.sort()
    median, late = times[PINGS // 2], times[PINGS * 99 // 100]
    found = f"{median * 1e3:.2f} ms a round trip, p99 {late * 1e3:.2f} ms"
    if median > SLOW_SECONDS:
        return warning(
            "redis latency",
            found,
            "move Redis closer to scheduler and rank 0; --look-ahead auto of the scheduler hides some of it",
        )
    return ok("redis latency", found)


def _config(client: redis.Redis, name: str) -> str | None:
    try:
        found = cast("dict[str, str]", client.config_get(name))
    except ResponseError:
        return None
    return found.get(name)
