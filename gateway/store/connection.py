"""Connections of a gateway to Redis, for its event loop."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

TIMEOUT_SECONDS = 5
"""Most that a command, a connection, or a wait for a free connection takes; a blocking read adds its own."""


def open_client(url: str, *, connections: int) -> Redis:
    """Calls wait for a free connection. What was sent once is not sent again: a submission whose answer was
    lost may have been accepted. Raises ValueError for what is no Redis URL."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=TIMEOUT_SECONDS,
        protocol=2,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)
