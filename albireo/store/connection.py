"""A connection to Redis from a thread that may block, and retries of what may be sent twice.

Used by scheduler, workers and the local stack; gateways have their own on the event loop (``gateway/store``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from albireo.store.redis_errors import moved, passes

Answer = TypeVar("Answer")

RECONNECT_SECONDS = 10.0
"""How long a tier retries when Redis does not answer, or refuses for the moment, before it gives up."""
RETRY_SECONDS = 0.05


def connect(url: str, *, timeout: float = 5.0) -> redis.Redis:
    """A client whose every call is bounded by ``timeout`` seconds (blocking reads by theirs on top).

    It sends nothing twice by itself: a command whose answer was lost may have been carried out. A caller
    whose command is idempotent uses :func:`retried`. Raises ValueError for what is no Redis URL.
    """
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )


def retried(client: redis.Redis, call: Callable[[], Answer]) -> Answer:
    """Retries an idempotent call as long as its error may pass.

    Raises RedisError at once where it cannot, else when it lasts for RECONNECT_SECONDS.
    """
    deadline = time.monotonic() + RECONNECT_SECONDS
    while True:
        try:
            return call()
        except RedisError as error:
            if not passes(error) or time.monotonic() > deadline:
                raise
            if moved(error):
                client.connection_pool.disconnect()
            time.sleep(RETRY_SECONDS)
