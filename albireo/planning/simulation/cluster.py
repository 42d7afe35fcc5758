"""The services of one simulated group in virtual time: a real scheduler and a real rank 0, as actors."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape
from albireo.models import TINY
from albireo.planning.simulation.drawn_speed import DrawnSpeed
from albireo.planning.simulation.runner import VirtualRunner
from albireo.planning.simulation.step_table import StepTable
from albireo.planning.simulation.store import HostStore, KvUse, SimulatedHost
from albireo.runtime.settings import ServiceSettings
from albireo.virtual.keyspace import Keyspace
from scheduler_svc.core import SchedulerCore
from scheduler_svc.service import SchedulerService
from scheduler_svc.settings import SchedulerSettings
from worker_svc.cost.interface import CostModel
from worker_svc.cost.tiers import NO_TIERS, DescribedTiers
from worker_svc.sampling.layout import SamplingMode
from worker_svc.service import WorkerService
from worker_svc.settings import WorkerSettings

KEYS = Keys("simulated")
GROUP = uuid.UUID(int=1)
"""Incarnation of the group."""
START_SECONDS = 5.0
STOP_SECONDS = 10.0
"""Virtual seconds within which the services serve, and stop."""

Settings = TypeVar("Settings", bound=ServiceSettings)


class Health:
    """Where a service says whether it serves."""

    serving = False

    def set(self, *, serving: bool) -> None:
        self.serving = serving


class OneRank:
    """Rank 0 alone: the other ranks of the group would do the same at the same time."""

    rank = 0
    size = 1
    begun = ended = 0

    def barrier(self) -> None:
        """There is none to wait for."""


class Cluster:
    """One group and its scheduler, on the logs of ``space``. ``running`` starts and stops them."""

    def __init__(
        self,
        space: Keyspace,
        cost: CostModel,
        shape: GroupShape,
        speed: DrawnSpeed,
        *,
        synchronous: bool,
        sampling: SamplingMode,
        scheduler: Mapping[str, object],
        tiers: DescribedTiers = NO_TIERS,
    ) -> None:
        """``scheduler``: options of SchedulerSettings. ``tiers``: those of ``shape``. Raises ValueError where
        the options do not fit the group."""
        self.clock = clock = space.clock
        self.space = space
        self.kv = KvUse()
        self._health = Health()
        self._serving = Health()
        self._stop = clock.event()
        self.table = StepTable(shape, cost)
        host = SimulatedHost(cost, clock, self.table, self.kv)

        def open_store() -> HostStore:
            return HostStore(self.space, KEYS, GROUP.hex, host)

        common = {"model_name": KEYS.model, "synchronous": synchronous}
        self._worker = WorkerService(
            settings_of(
                WorkerSettings, {**common, "model": TINY, "device": "sim", "step_timeout_seconds": 1e9}
            ),
            OneRank(),
            VirtualRunner(host, shape, "driver" if synchronous else sampling, speed, tiers),
            "simulated",
            self._health,
            self._stop,
            clock=clock,
            open_store=open_store,
            abort=_fail,
            incarnation=GROUP,
        )
        limits = {"max_num_seqs": shape.max_seqs, "max_num_batched_tokens": max(2048, shape.max_seqs)}
        self._scheduler = SchedulerService(
            settings_of(SchedulerSettings, {**common, **limits, **scheduler}),
            self._serving,
            self._stop,
            clock=clock,
            open_store=open_store,
        )

    @property
    def core(self) -> SchedulerCore:
        """The scheduler's, to look at while the services run."""
        assert self._scheduler.core is not None
        return self._scheduler.core

    @contextmanager
    def running(self) -> Iterator[None]:
        """Returns control once both serve."""
        clock = self.clock
        actors = [clock.start("rank 0", self._worker.run), clock.start("scheduler", self._scheduler.run)]
        deadline = clock.now() + START_SECONDS
        while not (self._health.serving and self._serving.serving):
            if clock.now() > deadline:
                raise RuntimeError("the simulated group does not come up")
            clock.sleep(0.01)
        yield
        self._stop.set()
        for actor in actors:
            actor.join(STOP_SECONDS)


def settings_of(kind: type[Settings], options: Mapping[str, Any]) -> Settings:
    """Settings with these options; all others have their defaults, whatever the environment says, so that a
    simulation depends on nothing but its arguments. Raises ValueError."""
    defaults = {name: field.default for name, field in kind.model_fields.items() if not field.is_required()}
    try:
        return kind.model_validate({**defaults, **options})
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, found['loc']))}: {found['msg'].removeprefix('Value error, ')}"
            for found in error.errors()
        )
        raise ValueError("; ".join(problem.removeprefix(": ") for problem in problems)) from None


def _fail() -> NoReturn:
    """Called where an exception is handled: the run ends with it."""
    raise RuntimeError("rank 0 has failed")
