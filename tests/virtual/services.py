"""The real scheduler service as an actor of a virtual clock, on a keyspace in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from albireo.contract.keys import Keys
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Id, Keyspace
from albireo.virtual.store import MemoryStore
from scheduler_svc.service import SchedulerService
from scheduler_svc.settings import SchedulerSettings
from tests.races.scene import MODEL, Health

KEYS = Keys(MODEL)
STOP_SECONDS = 10.0


class RecordedKeyspace(Keyspace):
    """Folds every entry of every log into one hash, trimmed or not."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self._hash = hashlib.sha256()
        self.entries = 0

    def append(self, key: str, entry_id: Id, data: bytes) -> None:
        super().append(key, entry_id, data)
        self._hash.update(f"{key} {entry_id} {len(data)} ".encode() + data)
        self.entries += 1

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def scheduler(clock: VirtualClock, space: Keyspace, **options: object) -> Iterator[Health]:
    """The real scheduler service as an actor, stopped at the end."""
    settings = SchedulerSettings.model_validate({"model_name": MODEL, **options})
    health, stop = Health(), clock.event()
    service = SchedulerService(
        settings, health, stop, clock=clock, open_store=lambda: MemoryStore(space, KEYS)
    )
    running = clock.start("scheduler", service.run)
    yield health
    stop.set()
    running.join(STOP_SECONDS)
    assert not running.is_alive()
