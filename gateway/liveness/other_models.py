"""Names of other models that are served through the same Redis, for when a gateway's own model is not.

They go into its log and its answers: its ``--model-name`` may be wrong. On the event loop.
"""

from __future__ import annotations

import logging

from redis.exceptions import RedisError

from albireo.runtime.clock import Clock
from gateway.calls.refusal import Refusal, unavailable
from gateway.store.interface import GatewayStore

logger = logging.getLogger(__name__)

KEEP_SECONDS = 5.0
MAX_NAMES = 16


class OtherModels:
    """Asks the store for schedulers of other models, at most once in ``KEEP_SECONDS``."""

    def __init__(self, store: GatewayStore, clock: Clock, model: str) -> None:
        self._store = store
        self._clock = clock
        self._model = model
        self._names: list[str] = []
        self._asked_at: float | None = None  # by the clock

    async def names(self) -> list[str]:
        """At most MAX_NAMES, sorted; empty if the own model has a scheduler. The last ones found if the store
        does not answer."""
        now = self._clock.now()
        if self._asked_at is None or now - self._asked_at > KEEP_SECONDS:
            self._asked_at = now  # before the call: several callers may ask at once
            before = self._names
            try:
                self._names = await self._ask()
            except RedisError:
                return before
            if self._names and self._names != before:
                logger.warning("%r has no scheduler%s", self._model, self._hint())
        return self._names

    async def refusal(self, problem: str) -> Refusal:
        """UNAVAILABLE because the own model's scheduler or worker group is missing, with the other names."""
        return unavailable(f"{problem}{self._hint() if await self.names() else ''}")

    def _hint(self) -> str:
        names = ", ".join(map(repr, self._names))
        return f"; in the same Redis there is {names}: is the gateway's --model-name right?"

    async def _ask(self) -> list[str]:
        found = await self._store.models()
        return [] if self._model in found else sorted(found)[:MAX_NAMES]
