"""A store with gateways before it; the test plays scheduler and worker group.

The same tests run against Redis, in real time, and against the store in memory, in virtual time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from albireo.contract.keys import Keys
from albireo.store.interface import EntryId, GroupOpening, Store
from gateway.store.interface import GatewayStore, NewRequest

Body = Coroutine[Any, Any, None]

KEYS = Keys("m")
LEASE = b"scheduler"
TTL = 60.0
"""Seconds for which everything here stays alive unless a test says otherwise."""
SHORT = 0.03
"""Seconds after which that expires of which a test needs that it does."""
EXPIRED = 0.05
"""A sleep after which it has."""


class Scene:
    """What a test sees of the store."""

    def __init__(
        self, store: Store, open_gateway: Callable[[str, Keys], GatewayStore], run: Callable[[Body], None]
    ) -> None:
        """``store``: for scheduler and group. ``run``: runs a coroutine to its end in the store's time."""
        self.store = store
        self.run = run
        self.gateways: list[GatewayStore] = []
        self._open_gateway = open_gateway
        self._lease = store.lease(KEYS.lease, LEASE, ttl=TTL)
        self._epoch = self._notice = 0

    async def gateway(self, gateway_id: str = "a", *, ttl: float = TTL, keys: Keys = KEYS) -> GatewayStore:
        """A gateway that is alive for ``ttl`` seconds; with 0 it has not begun to live."""
        found = self._open_gateway(gateway_id, keys)
        self.gateways.append(found)
        if ttl:
            await found.start_heartbeat(ttl)
        return found

    async def serving(self) -> GatewayStore:
        """A gateway before a scheduler and a group, ``w``, in their first epoch."""
        self.begin_scheduler()
        self.open_epoch()
        self.open_group()
        return await self.gateway()

    def begin_scheduler(self) -> None:
        assert self._lease.acquire()

    def end_scheduler(self) -> None:
        self._lease.release()

    def open_epoch(self) -> int:
        self._epoch, _ = self.store.open_epoch(lease_value=LEASE)
        self._notice = 0
        return self._epoch

    def open_group(self, group: str = "w") -> None:
        self._notice += 1
        opening = GroupOpening(self._epoch, group, group.upper())
        self.store.open_group(opening, notice=self._notice, lease_value=LEASE)

    def close_group(self, group: str = "w") -> None:
        self._notice += 1
        opening = GroupOpening(self._epoch, group, group.upper())
        self.store.close_group(opening, "dead", notice=self._notice, lease_value=LEASE)

    def append_notice(self, data: bytes) -> None:
        self._notice += 1
        self.store.log(KEYS.notices, keep=1000).append(EntryId(self._epoch, self._notice), data)

    def append_result(self, step: int, data: bytes, *, group: str = "w") -> None:
        self.store.log(KEYS.results(group), keep=1000).append(EntryId(self._epoch, step), data)

    def inbox(self) -> list[bytes]:
        return [data for _, data in self.store.log(KEYS.inbox).read("0-0", 0)]


def in_store_time(test: Callable[..., Body]) -> Callable[..., None]:
    """Runs an asynchronous test on the event loop of its scene's store."""

    @functools.wraps(test)
    def run(scene: Scene, **arguments: Any) -> None:
        scene.run(test(scene, **arguments))

    return run


def request(
    request_id: str = "r", *, digest: str = "d", name: str = "", branches: int = 1, **options: Any
) -> NewRequest:
    """A request whose inbox entry is ``<name>`` and whose cancellation is ``-<name>``."""
    name = name or request_id
    settings = {"max_queue": 100, "record_seconds": TTL, **options}
    return NewRequest(
        request_id=request_id,
        digest=digest,
        entry=name.encode(),
        cancellation=f"-{name}".encode(),
        branches=branches,
        **settings,
    )
