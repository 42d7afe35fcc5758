"""Deadlines and the order of the queue count from an entry's append to the inbox, however late it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from albireo.contract.keys import Keys
from albireo.contract.plan import Ended, Finish, GroupShape
from albireo.runtime.clock import Event
from albireo.store.interface import LogEntry, Store
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from tests.races.cluster import VirtualCluster
from tests.races.reader import Story
from tests.races.scene import Scene
from tests.scheduler_svc.core.samples import prompt

DELAY = 1.0
"""Seconds after which the scheduler begins to read."""


class DelayedStore(MemoryStore):
    """Reads of several logs at once, which the scheduler alone makes, wait for an event."""

    def __init__(self, space: Keyspace, keys: Keys, may_read: Event) -> None:
        super().__init__(space, keys)
        self._may_read = may_read

    def read(self, after: Mapping[str, str], wait: float) -> dict[str, list[LogEntry]]:
        self._may_read.wait()
        return super().read(after, wait)


class DelayedCluster(VirtualCluster):
    """The epoch opens, but no entry of a log is read until ``may_read`` is set."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.may_read = clock.event()

    def open_store(self, keys: Keys) -> Store:
        return DelayedStore(self.space, keys, self.may_read)


@pytest.fixture
def cluster() -> Iterator[DelayedCluster]:
    with VirtualClock() as clock:
        yield DelayedCluster(clock)


@pytest.fixture
def make_scene(cluster: DelayedCluster) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**options: Any) -> Scene:
        made.append(Scene(cluster, shape=GroupShape(64, 4, 256), **options))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


def test_a_request_whose_deadline_passed_before_it_was_read_is_never_admitted(
    cluster: DelayedCluster, make_scene: Callable[..., Scene]
) -> None:
    scene = make_scene()
    scene.submit("late", prompt(10), timeout_s=DELAY / 2)
    scene.submit("patient", prompt(10, 1))
    cluster.clock.sleep(DELAY)
    cluster.may_read.set()
    plan = scene.group.next_plan()
    assert plan.ended == ()  # a notice ends it
    assert [admission.request_id for admission in plan.admissions] == ["patient"]
    scene.group.answer(plan)
    plans = scene.finish()
    assert not any(admission.request_id == "late" for later in plans for admission in later.admissions)
    assert scene.story("late") == Story([], Finish.DEADLINE)
    assert scene.story("patient") == scene.alone("patient")


def test_a_request_that_was_read_late_has_the_rest_of_its_time(
    cluster: DelayedCluster, make_scene: Callable[..., Scene]
) -> None:
    scene = make_scene()
    submitted = cluster.clock.now()
    scene.submit("a", prompt(10), timeout_s=DELAY + 0.5, max_tokens=50)
    cluster.clock.sleep(DELAY)
    cluster.may_read.set()
    first, *flight = scene.fill()
    assert [admission.request_id for admission in first.admissions] == ["a"]
    scene.wait_for(lambda: cluster.clock.now() >= submitted + DELAY + 0.5, "time stands still")
    scene.group.answer(first)
    plan = scene.group.next_plan()
    assert plan.ended == (Ended("a", Finish.DEADLINE),)
    for in_flight in (*flight, plan):
        scene.group.answer(in_flight)
    scene.finish()


def test_the_queue_is_in_the_order_of_the_appends_though_all_are_read_at_once(
    cluster: DelayedCluster, make_scene: Callable[..., Scene]
) -> None:
    """The first lets others pass for half of the delay, so the second comes too late to pass it."""
    scene = make_scene(max_num_seqs=1, priority_seconds=DELAY / 2)
    scene.submit("first", prompt(10), priority=1)
    cluster.clock.sleep(DELAY)
    scene.submit("second", prompt(10, 1))
    cluster.may_read.set()
    plans = scene.finish()
    admitted = [admission.request_id for plan in plans for admission in plan.admissions]
    assert admitted == ["first", "second"]
