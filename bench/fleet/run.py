"""One run: a scheduler and its groups on a keyspace in memory, some virtual seconds under a load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape
from albireo.planning.simulation.cluster import Health, settings_of
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from bench.fleet.cpu import ActorTime
from bench.fleet.group import Pace, TimedGroup
from bench.fleet.load import Draw, Load
from scheduler_svc.service import SchedulerService
from scheduler_svc.settings import SchedulerSettings

KEYS = Keys("fleet")
START_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Member:
    """One group of a fleet."""

    shape: GroupShape
    pace: Pace


@dataclass
class Fleet:
    """What runs; its clock is driven by ``sleep``."""

    clock: VirtualClock
    groups: Sequence[TimedGroup]
    load: Load
    leader: ActorTime  # CPU time of the scheduler


@contextmanager
def running_fleet(
    members: Sequence[Member], draw: Draw, *, seed: int = 1, scheduler: Mapping[str, object] | None = None
) -> Iterator[Fleet]:
    """Returns control once the scheduler leads all groups. ``scheduler``: options of SchedulerSettings."""
    largest = max(member.shape.max_seqs for member in members)
    limits = {"max_num_seqs": largest, "max_num_batched_tokens": max(2048, 4 * largest)}
    settings = settings_of(SchedulerSettings, {"model_name": KEYS.model, **limits, **(scheduler or {})})
    with VirtualClock() as clock:
        space, health, leader = Keyspace(clock), Health(), ActorTime()
        service = SchedulerService(
            settings, health, clock.event(), clock=clock, open_store=lambda: MemoryStore(space, KEYS)
        )
        load = Load(clock, space, KEYS, draw, seed)
        groups = [
            TimedGroup(clock, space, KEYS, f"g{number}", member.shape, member.pace, load)
            for number, member in enumerate(members)
        ]
        clock.start("scheduler", _marked(leader, service.run))
        for group in groups:
            group.start()
        while service.core is None or len(service.core.groups) < len(groups):
            if clock.now() > START_SECONDS:
                raise RuntimeError(f"the scheduler does not lead {len(groups)} groups")
            clock.sleep(0.1)
        with leader.counting():
            yield Fleet(clock, groups, load, leader)


def _marked(time: ActorTime, body: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        time.mark()
        body()

    return run
