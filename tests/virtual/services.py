"""The real services as actors of a virtual clock, on one keyspace in memory."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract.keys import Keys
from albireo.models import TINY
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Id, Keyspace
from albireo.virtual.store import MemoryStore
from scheduler_svc.service import SchedulerService
from scheduler_svc.settings import SchedulerSettings
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.runner.cost_model import CostModel
from worker_svc.runner.simulated_runner import SimulatedRunner
from worker_svc.service import WorkerService
from worker_svc.settings import WorkerSettings

MODEL = "tiny"
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


class Health:
    """What the scheduler says of itself."""

    serving = False

    def set(self, *, serving: bool) -> None:
        self.serving = serving


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


@contextmanager
def worker(clock: VirtualClock, space: Keyspace, cost: CostModel, **options: object) -> Iterator[Health]:
    """The only rank of a group, with the bundled model on the simulated device; stopped at the end."""
    settings = WorkerSettings.model_validate(
        {"model_name": MODEL, "model": TINY, "device": "sim", "max_seqs": 8, "max_model_len": 256, **options}
    )
    runner = SimulatedRunner(
        TINY,
        cost,
        rank=0,
        tp=1,
        kv_memory=4 << 20,
        max_seqs=settings.max_seqs,
        max_model_len=settings.max_model_len,
        clock=clock,
    )
    health, stop = Health(), clock.event()
    service = WorkerService(
        settings,
        TPGroup(),
        runner,
        fingerprint(TINY),
        health,
        stop,
        clock=clock,
        open_store=lambda: MemoryStore(space, KEYS),
        abort=fail,
        incarnation=uuid.UUID(int=1),
    )
    running = clock.start("worker", service.run)
    yield health
    stop.set()
    running.join(STOP_SECONDS)
    assert not running.is_alive()


def fail() -> NoReturn:
    """Called where an exception is handled: the run ends with it."""
    raise RuntimeError("the rank has failed")
