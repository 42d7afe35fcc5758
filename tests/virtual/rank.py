"""A real rank on the simulated device, as actors of a virtual clock."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from albireo.checkpoint.fingerprint import fingerprint
from albireo.models import TINY
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from tests.races.scene import MODEL, Health
from tests.virtual.services import KEYS, STOP_SECONDS
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.cost.interface import CostModel
from worker_svc.runner.simulated_runner import SimulatedRunner
from worker_svc.service import WorkerService
from worker_svc.settings import WorkerSettings


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
