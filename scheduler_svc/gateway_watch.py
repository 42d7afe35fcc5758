"""Which gateways are alive. The scheduler service's thread looks at them."""

from __future__ import annotations

import logging

from albireo.contract.keys import Keys
from albireo.runtime.clock import Clock
from albireo.store.interface import Store
from scheduler_svc.core import SchedulerCore

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often the heartbeats of the gateways that have live requests are read."""


class GatewayWatch:
    """Ends the requests of gateways that are gone: no client gets their answers, and slots are needed."""

    def __init__(self, store: Store, keys: Keys, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._next_look = 0.0  # by the clock

    def look(self, core: SchedulerCore) -> None:
        """Looks, if LOOK_SECONDS have passed since the last look. Raises RedisError."""
        if self._clock.now() < self._next_look:
            return
        self._next_look = self._clock.now() + LOOK_SECONDS
        names = sorted(core.gateways())
        if not names:
            return
        heartbeats = self._store.get([self._keys.gateway(name) for name in names])
        for name, heartbeat in zip(names, heartbeats, strict=True):
            if heartbeat is None:
                count = core.abandon(name)
                logger.warning("gateway %s is gone: its %d requests are cancelled", name, count)
