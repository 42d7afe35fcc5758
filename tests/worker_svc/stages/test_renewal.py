"""What the renewal thread does for a rank, in virtual time: when it ends the rank, and when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest

from albireo.store.interface import Fenced
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from tests.worker_svc.stages.opened import GROUP, KEYS, OpenedGroup
from tests.worker_svc.stages.test_heartbeat import Peers
from worker_svc.stages.ending import Ending
from worker_svc.stages.heartbeat import Heartbeat
from worker_svc.stages.registration import Registration
from worker_svc.stages.renewal import DRAIN_SECONDS, END_SECONDS, Intervals, Renewal
from worker_svc.stages.step_watch import StepWatch

TTL = 3.0
STEP_TIMEOUT = 20.0


class Aborted(Exception):
    """In place of the end of the process."""


def abort() -> NoReturn:
    raise Aborted


class Scene:
    """Rank 0 of an opened group, unless it is another rank, and its renewal as an actor."""

    def __init__(self, clock: VirtualClock, *, first: bool = True, opened: bool = True) -> None:
        self.clock = clock
        self.group = OpenedGroup(clock)
        self.ending = Ending.of(clock.event(), clock)
        self.watch = StepWatch(clock)
        self.opened = opened
        self.renewals = 0
        store = self.group.open_store()
        info = log.GroupInfo(incarnation=GROUP)
        self.registration = Registration(store, KEYS, info, ttl=TTL) if first else None
        self._renewal = Renewal(
            self.registration,
            Heartbeat(store, KEYS.rank(GROUP, 0), self.watch, Peers(), clock, asynchronous=False),
            store.log(KEYS.plans(GROUP)),
            self.watch,
            self.ending,
            clock,
            Intervals(0.25, TTL / 6, STEP_TIMEOUT),
            opened=lambda: self.opened,
            on_renewal=self._on_renewal,
            abort=abort,
        )
        self.raised: list[Exception] = []
        self.thread = clock.start("renewal", self._run)

    def _run(self) -> None:
        try:
            self._renewal.run()
        except (Fenced, Aborted) as error:
            self.raised.append(error)

    def _on_renewal(self) -> None:
        self.renewals += 1

    def wait(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    @property
    def registered(self) -> dict[str, bytes | None]:
        return self.group.store.groups()


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


def test_a_rank_that_serves_stays_registered_and_beats(clock: VirtualClock) -> None:
    scene = Scene(clock)
    scene.wait(10)
    assert scene.registered == {GROUP: log.GroupInfo(incarnation=GROUP).SerializeToString()}
    assert scene.renewals == 20
    [beat] = scene.group.store.get([KEYS.rank(GROUP, 0)])
    assert log.RankBeat.FromString(beat or b"").count == 40
    assert scene.raised == []


def test_a_closed_group_is_noticed_whatever_the_stages_do(clock: VirtualClock) -> None:
    scene = Scene(clock)
    scene.wait(1)
    scene.group.close("rank 1 is stopped")
    scene.wait(0.3)
    assert str(scene.raised[0]) == "the scheduler has closed this group: rank 1 is stopped"


def test_a_group_whose_logs_have_expired_is_closed(clock: VirtualClock) -> None:
    """As for a rank that was stopped for minutes."""
    scene = Scene(clock, first=False)
    scene.group.space.expire_stream(KEYS.plans(GROUP), ttl=0.1)
    scene.wait(0.3)
    assert "the plans of this group are gone" in str(scene.raised[0])


def test_a_group_that_no_scheduler_leads_yet_registers_again_where_that_was_lost(clock: VirtualClock) -> None:
    scene = Scene(clock, opened=False)
    scene.group.store.leave(GROUP)  # as by a store that has lost everything
    scene.wait(1)
    assert GROUP in scene.registered


def test_a_group_that_is_led_never_registers_again(clock: VirtualClock) -> None:
    scene = Scene(clock)
    scene.group.store.leave(GROUP)
    scene.wait(5)
    assert scene.registered == {}


def test_a_step_without_end_ends_the_rank(clock: VirtualClock) -> None:
    scene = Scene(clock)
    scene.watch.begin(1)
    scene.wait(STEP_TIMEOUT - 0.5)
    assert scene.raised == []
    scene.wait(1)
    assert [type(error) for error in scene.raised] == [Aborted]


def test_a_rank_that_is_asked_to_stop_has_so_long_for_its_steps(clock: VirtualClock) -> None:
    scene = Scene(clock)
    scene.ending.asked.set()
    scene.wait(DRAIN_SECONDS - 0.5)
    assert not scene.ending.over.is_set()
    scene.wait(1)
    assert scene.ending.over.is_set()
    scene.ending.done.set()
    scene.wait(END_SECONDS + 1)
    assert scene.raised == []
    assert not scene.thread.is_alive()


def test_other_ranks_of_a_group_that_is_not_led_stop_at_once(clock: VirtualClock) -> None:
    scene = Scene(clock, first=False, opened=False)
    scene.ending.asked.set()
    scene.wait(0.3)
    assert scene.ending.over.is_set()


def test_a_main_thread_that_hangs_does_not_keep_the_process(clock: VirtualClock) -> None:
    scene = Scene(clock)
    scene.ending.over.set()
    scene.wait(END_SECONDS + 0.5)
    assert [type(error) for error in scene.raised] == [Aborted]
