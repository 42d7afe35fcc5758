"""Plans of several groups go to the store together, and no group waits for many others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape, SamplingParams, Submission
from albireo.store.interface import EntryId, Fenced, GroupOpening, NewEntry
from albireo.telemetry import OFF
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from scheduler_svc.core import Limits, SchedulerCore, Window
from scheduler_svc.group_watch import GroupWatch
from scheduler_svc.led_group import LedGroup
from scheduler_svc.publishing import PLANS_A_ROUND_TRIP, Publisher
from scheduler_svc.telemetry.turn import TurnTelemetry
from scheduler_svc.watched_time import WatchedTime

KEYS = Keys("m")
WINDOW = 2


class CountingStore(MemoryStore):
    """Records how many entries each call appends."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(Keyspace(clock), KEYS)
        self.appended: list[int] = []

    def append_all(self, entries: Sequence[NewEntry], *, keep: int) -> None:
        self.appended.append(len(entries))
        super().append_all(entries, keep=keep)


class Scene:
    """Groups without workers, one request placed on each."""

    def __init__(self, clock: VirtualClock, groups: int) -> None:
        self.store = CountingStore(clock)
        self.store.lease(KEYS.lease, b"s", ttl=60).acquire()
        self.epoch, _ = self.store.open_epoch(lease_value=b"s")
        core = SchedulerCore(Limits(max_num_seqs=1, max_in_flight=WINDOW), epoch=self.epoch, salt=b"")
        self.groups = []
        for number in range(groups):
            opening = GroupOpening(self.epoch, f"life{number}", f"g{number}")
            self.store.open_group(opening, notice=number + 1, lease_value=b"s")
            group = LedGroup(
                opening,
                log.GroupInfo(incarnation=opening.group, tp=1),
                core.join(opening.name, GroupShape(16, 1, 64)),
                Window(WINDOW),
                GroupWatch(1, WatchedTime(clock), 5.0),
                keys=KEYS,
                clock=clock,
                telemetry=TurnTelemetry(OFF),
            )
            self.groups.append(group)
            core.submit(Submission(opening.name, (1, 2), SamplingParams(max_tokens=9, seed=0)), 0.0)
        core.place()
        self.publisher = Publisher(self.store, clock, keep=100)

    def publish(self) -> None:
        self.publisher.publish(self.groups, 0.0, 0)

    def steps(self) -> list[int]:
        """How many plans the log of each group holds."""
        return [len(self.store.log(group.plans).read(f"{self.epoch}-0", 0)) for group in self.groups]


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


def test_plans_of_several_groups_are_appended_together(clock: VirtualClock) -> None:
    scene = Scene(clock, PLANS_A_ROUND_TRIP + 1)
    scene.publish()
    assert scene.steps() == [WINDOW] * len(scene.groups)
    assert scene.store.appended == [PLANS_A_ROUND_TRIP, 1] * WINDOW
    scene.publish()  # the windows are full
    assert len(scene.store.appended) == 2 * WINDOW


def test_no_plan_of_a_group_waits_for_its_next(clock: VirtualClock) -> None:
    scene = Scene(clock, 1)
    scene.publish()
    assert scene.store.appended == [1] * WINDOW


def test_a_refused_plan_ends_the_scheduler_and_no_other_plan(clock: VirtualClock) -> None:
    scene = Scene(clock, 3)
    scene.store.log(scene.groups[1].plans, keep=100).append(EntryId(scene.epoch + 1, 0), b"another's")
    with pytest.raises(Fenced, match="life1"):
        scene.publish()
    assert scene.steps() == [1, 1, 1]  # that of the second is the other scheduler's
