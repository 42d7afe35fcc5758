"""A scheduler, two gateways and groups that join, die, hang, stop, drain and come back, from one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract.plan import GroupShape
from albireo.models import TINY
from albireo.v1 import control_pb2 as control
from albireo.virtual.clock import VirtualClock
from albireo.virtual.store import MemoryStore
from tests.virtual.cluster import MAX_QUEUE, Clients, Outcome
from tests.virtual.gateway import VirtualGateway
from tests.virtual.group import ScriptedGroup, State
from tests.virtual.services import KEYS, RecordedKeyspace, scheduler

SHAPES = (GroupShape(20, 8, 128), GroupShape(40, 4, 128), GroupShape(12, 6, 128))
TROUBLES = (State.OVER, State.DRAINS, State.HANGS, State.STOPPED)


@dataclass
class FleetOutcome(Outcome):
    """What a run has left, and what has happened to its groups."""

    closings: Counter[str]  # by cause
    found: list[float]  # seconds from a trouble to the closing of its group
    lives: int


class Fleet:
    """The groups: so many places, in each of which one life follows the other."""

    def __init__(
        self, clock: VirtualClock, space: RecordedKeyspace, draw: random.Random, deadly: Callable[[str], bool]
    ) -> None:
        self._clock = clock
        self._space = space
        self._draw = draw
        self._deadly = deadly
        self.lives: list[ScriptedGroup] = []
        self.found: list[float] = []

    def live(self, place: int, until: float, seconds_between: float) -> None:
        """An actor: groups come and go in one place, the last of them stays."""
        draw, clock, slowness = self._draw, self._clock, 2.0**place
        while True:
            group, trouble_at = (
                self._start(place, slowness),
                clock.now() + draw.expovariate(1 / seconds_between),
            )
            while group.state is not State.OVER and clock.now() < until:
                clock.sleep(0.5)
                if group.state is State.SERVES and trouble_at <= clock.now() < until:
                    self._trouble(group)
            if group.state is not State.OVER:
                return
            clock.sleep(draw.uniform(0, 20))

    def _start(self, place: int, slowness: float) -> ScriptedGroup:
        draw = self._draw
        group = ScriptedGroup(
            self._clock,
            lambda: MemoryStore(self._space, KEYS),
            KEYS,
            SHAPES[place % len(SHAPES)],
            incarnation=f"place-{place}-life-{len(self.lives)}",
            fingerprint=fingerprint(TINY),
            step_seconds=lambda: slowness * draw.uniform(0.03, 0.08),
            deadly=self._deadly,
        )
        self.lives.append(group)
        group.start()
        return group

    def _trouble(self, group: ScriptedGroup) -> None:
        """Ends a group somehow, and waits until the scheduler has closed it."""
        began, group.state = self._clock.now(), self._draw.choice(TROUBLES)
        while group.incarnation in self._space.members(KEYS.groups):
            self._clock.sleep(0.05)
            if group.state is State.HANGS:
                # Without a plan nothing hangs: where none comes, the group ends otherwise.
                began = self._clock.now() if group.computing_since is None else group.computing_since
                if group.computing_since is None and self._draw.random() < 0.01:
                    group.state = State.STOPPED
            assert self._clock.now() < began + 60, f"{group.incarnation} is not closed"
        self.found.append(self._clock.now() - began)
        group.state = State.OVER


def run(
    seed: int,
    seconds: float,
    *,
    places: int = 3,
    seconds_between: float = 30.0,
    deadly: Callable[[str], bool] = lambda name: False,
    rate: float = 0.4,
    drain_seconds: float = 120.0,
) -> FleetOutcome:
    """``seconds`` of virtual time. In the last ``drain_seconds`` nothing arrives and no group dies.

    ``seconds_between``: mean time from a group's begin to its end. ``rate``: requests a second.
    """
    draw, checkpoint = random.Random(seed), fingerprint(TINY)
    with VirtualClock() as clock:
        space = RecordedKeyspace(clock)
        fleet = Fleet(clock, space, draw, deadly)
        gateways = [
            VirtualGateway(clock, space, KEYS, f"g{i}", fingerprint=checkpoint, max_queue=MAX_QUEUE)
            for i in range(2)
        ]
        clients = Clients(clock, gateways, draw, rate=rate)
        quiet = seconds - drain_seconds
        with scheduler(clock, space) as health:
            for place in range(places):
                clock.start(f"place {place}", lambda place=place: fleet.live(place, quiet, seconds_between))  # type: ignore[misc]
            for gateway in gateways:
                clock.run(gateway.start())
            clock.sleep(2)
            assert health.serving
            clock.start_task("arrivals", clients.arrive(quiet))
            clock.sleep(seconds - clock.now())
            load = control.Load.FromString(cast("bytes", space.get(KEYS.load)))
            assert clients.running == 0
            assert not any(len(gateway.router) for gateway in gateways)
        return FleetOutcome(
            space.digest,
            clients.answers,
            load,
            space.get(KEYS.waiting),
            sum(group.steps for group in fleet.lives),
            space.entries,
            closings=Counter(group.closed.split(" ")[0] for group in fleet.lives),
            found=fleet.found,
            lives=len(fleet.lives),
        )
