"""Which gateways follow the requests that run."""

from __future__ import annotations

import logging
from typing import cast

import redis

from albireo.contract.keys import Keys
from albireo.store.logs import ride_out
from scheduler_svc.core import SchedulerCore

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often it is seen which gateways are there: once for each that has live requests."""


class Gateways:
    """Ends the requests of gateways that are gone: no client gets their answers, and slots are needed."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._next_look = 0.0

    def look(self, core: SchedulerCore, now: float) -> None:
        """Does something every LOOK_SECONDS. Raises RedisError."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        names = sorted(core.gateways())
        if not names:
            return
        keys = [self._keys.gateway(name) for name in names]
        found = cast("list[bytes | None]", ride_out(self._client, lambda: self._client.mget(keys)))
        for name, value in zip(names, found, strict=True):
            if value is None:
                count = core.abandon(name)
                logger.warning("gateway %s is gone: its %d requests are cancelled", name, count)
