"""What people call the groups whose results a gateway follows.

Openings have the names of groups; the scheduler's load has those of groups that were open before the gateway
began. The results reader keeps it, on the event loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from albireo.runtime.clock import Clock
from albireo.v1 import control_pb2 as control
from gateway.store.interface import GatewayStore

ASK_SECONDS = 1.0
"""The scheduler writes its load once a second."""


class GroupNames:
    """Display names by incarnation."""

    def __init__(self, store: GatewayStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._names: dict[str, str] = {}
        self._asked_at: float | None = None  # by the clock

    def get(self, group: str) -> str:
        """The incarnation itself where the name is not known yet."""
        return self._names.get(group, group)

    def put(self, group: str, name: str) -> None:
        self._names[group] = name

    def forget(self, group: str) -> None:
        self._names.pop(group, None)

    async def complete(self, groups: Iterable[str]) -> None:
        """Looks for the names of those of these groups that have none, at most once in ``ASK_SECONDS``.
        Raises RedisError."""
        missing = [group for group in groups if group not in self._names]
        now = self._clock.now()
        if not missing or (self._asked_at is not None and now - self._asked_at < ASK_SECONDS):
            return
        self._asked_at = now
        data = await self._store.load()
        with contextlib.suppress(DecodeError):
            load = control.Load.FromString(data or b"")
            known = {group.incarnation: group.name for group in load.groups}
            self._names |= {group: known[group] for group in missing if group in known}
