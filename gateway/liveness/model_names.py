"""Names of models: that of this gateway's, and of others that are served through the same Redis.

They go into its log and its answers: its ``--model-name`` or a client's may be wrong. On the event loop.
"""

from __future__ import annotations

import contextlib
import logging

import grpc
from redis.exceptions import RedisError

from albireo.runtime.clock import Clock
from gateway.calls.refusal import Refusal, cut, unavailable
from gateway.store.interface import GatewayStore

logger = logging.getLogger(__name__)

KEEP_SECONDS = 5.0
MAX_NAMES = 16


class ModelNames:
    """Asks the store for schedulers of models, at most once in ``KEEP_SECONDS``."""

    def __init__(self, store: GatewayStore, clock: Clock, model: str) -> None:
        """``model``: the one that this gateway serves."""
        self._store = store
        self._clock = clock
        self._model = model
        self._found: set[str] = set()  # that had a scheduler
        self._asked_at: float | None = None  # by the clock
        self._warned: list[str] = []

    async def others(self) -> list[str]:
        """At most MAX_NAMES, sorted; empty if the own model has a scheduler. The last ones found if the store
        does not answer."""
        await self._ask()
        if self._model in self._found:
            return []
        others = sorted(self._found)[:MAX_NAMES]
        if others and others != self._warned:
            self._warned = others
            logger.warning("%r has no scheduler%s", self._model, _hint(others))
        return others

    async def missing(self, problem: str) -> Refusal:
        """UNAVAILABLE because the own model's scheduler or groups are missing, with the other names."""
        return unavailable(f"{problem}{_hint(await self.others())}")

    async def check(self, model: str) -> None:
        """Raises Refusal (NOT_FOUND) for a model that is not served here, with the names of those that are
        there. Empty means the served one."""
        if model in ("", self._model):
            return
        await self._ask()
        elsewhere = ", ".join(map(repr, sorted(self._found - {self._model})[:MAX_NAMES]))
        also = f"; behind other gateways of the same Redis: {elsewhere}" if elsewhere else ""
        raise Refusal(
            grpc.StatusCode.NOT_FOUND,
            f"model: {cut(model)!r} is not served here, {self._model!r} is{also}",
        )

    async def _ask(self) -> None:
        now = self._clock.now()
        if self._asked_at is not None and now - self._asked_at <= KEEP_SECONDS:
            return
        self._asked_at = now  # before the call: several callers may ask at once
        with contextlib.suppress(RedisError):
            self._found = await self._store.models()


def _hint(others: list[str]) -> str:
    if not others:
        return ""
    names = ", ".join(map(repr, others))
    return f"; in the same Redis there is {names}: is the gateway's --model-name right?"
