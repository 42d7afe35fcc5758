"""A group is dead when it is not announced, when a rank is silent, and when all ranks wait for each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from scheduler_svc.group_watch import MISSES, Closing, GroupWatch
from scheduler_svc.watched_time import LOOK_SECONDS, WatchedTime

BOUND = 5.0
WAITING, COMPUTING, COLLECTIVE = (
    log.RANK_STAGE_WAITING,
    log.RANK_STAGE_COMPUTING,
    log.RANK_STAGE_COLLECTIVE,
)


class Scene:
    """Ranks that beat at each look, unless a test stops one."""

    def __init__(self, clock: VirtualClock, ranks: int) -> None:
        self._clock = clock
        self._watched = WatchedTime(clock)
        self.watch = GroupWatch(ranks, self._watched, BOUND)
        self.beats = [log.RankBeat(count=1) for _ in range(ranks)]
        self.stopped: set[int] = set()
        self.announced = True
        self.began = clock.now()

    def look(self) -> Closing | None:
        self._clock.sleep(LOOK_SECONDS)
        self._watched.look()
        for number, beat in enumerate(self.beats):
            if number not in self.stopped:
                beat.count += 1
                beat.seconds += LOOK_SECONDS
        return self.watch.look(self.announced, [beat.SerializeToString() for beat in self.beats])

    def seconds_to_death(self, most: float = 30.0) -> tuple[float, Closing | None]:
        began = self._clock.now()
        while self._clock.now() < began + most:
            if (closing := self.look()) is not None:
                return self._clock.now() - began, closing
        return most, None

    def set(self, rank: int, stage: log.RankStage) -> None:
        self.beats[rank].MergeFrom(log.RankBeat(stage=stage, step=7))
        self.beats[rank].seconds = 0

    def pause(self, seconds: float) -> None:
        self._clock.sleep(seconds)


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


def test_ranks_that_beat_live_whatever_they_do(clock: VirtualClock) -> None:
    scene = Scene(clock, 3)
    scene.set(1, COMPUTING)
    assert scene.seconds_to_death(60) == (60, None)


def test_a_silent_rank_is_found_within_the_bound_and_a_second(clock: VirtualClock) -> None:
    scene = Scene(clock, 3)
    scene.seconds_to_death(3)
    scene.stopped.add(2)
    seconds, closing = scene.seconds_to_death()
    assert closing is not None
    assert closing.cause == "heartbeat"
    assert "rank 2" in closing.text
    assert BOUND < seconds <= BOUND + 1


def test_a_rank_that_never_beats_is_dead(clock: VirtualClock) -> None:
    scene = Scene(clock, 2)
    scene.beats[1].Clear()
    scene.stopped.add(1)
    seconds, closing = scene.seconds_to_death()
    assert closing is not None
    assert seconds <= BOUND + 1


def test_ranks_in_one_collective_are_stuck_after_the_bound(clock: VirtualClock) -> None:
    scene = Scene(clock, 3)
    scene.set(1, COLLECTIVE)
    scene.set(2, COLLECTIVE)  # rank 0 waits for a plan
    seconds, closing = scene.seconds_to_death()
    assert closing is not None
    assert closing.cause == "stuck"
    assert "step 7" in closing.text
    assert BOUND < seconds <= BOUND + 1


def test_a_rank_that_computes_is_waited_for(clock: VirtualClock) -> None:
    scene = Scene(clock, 2)
    scene.set(0, COLLECTIVE)
    scene.set(1, COMPUTING)
    assert scene.seconds_to_death(60) == (60, None)


def test_a_collective_that_goes_on_is_not_stuck(clock: VirtualClock) -> None:
    scene = Scene(clock, 2)
    for _ in range(10):
        scene.set(0, COLLECTIVE)
        scene.set(1, COLLECTIVE)
        assert scene.seconds_to_death(BOUND - 1)[1] is None


def test_one_rank_alone_has_no_peers_to_wait_for(clock: VirtualClock) -> None:
    scene = Scene(clock, 1)
    scene.set(0, COLLECTIVE)
    assert scene.seconds_to_death(60) == (60, None)


def test_a_pause_of_the_scheduler_counts_for_no_rank(clock: VirtualClock) -> None:
    scene = Scene(clock, 2)
    scene.stopped |= {0, 1}
    assert scene.seconds_to_death(3)[1] is None
    scene.pause(60)
    scene.stopped.clear()
    assert scene.seconds_to_death(60) == (60, None)


def test_a_pause_of_the_store_makes_no_collective_stuck(clock: VirtualClock) -> None:
    scene = Scene(clock, 2)
    for rank in (0, 1):
        scene.set(rank, COLLECTIVE)
    scene.pause(60)
    for beat in scene.beats:
        beat.seconds = 60
    assert scene.look() is None
    seconds, closing = scene.seconds_to_death()
    assert closing is not None
    assert BOUND - 1 < seconds <= BOUND + 1


def test_an_announcement_may_be_missed_a_few_times(clock: VirtualClock) -> None:
    scene = Scene(clock, 1)
    scene.announced = False
    assert [scene.look() for _ in range(MISSES - 1)] == [None] * (MISSES - 1)
    scene.announced = True
    assert scene.look() is None
    scene.announced = False
    found = [scene.look() for _ in range(MISSES)]
    assert found[:-1] == [None] * (MISSES - 1)
    assert found[-1] == Closing("announcement", "its announcement has expired")


def test_a_beat_that_cannot_be_read_is_none(clock: VirtualClock) -> None:
    scene = Scene(clock, 1)
    assert scene.watch.look(True, [b"\xff\xff"]) is None
    [rank] = scene.watch.report()
    assert (rank.stage, rank.step) == ("waiting", 0)


def test_the_report_says_what_each_rank_does(clock: VirtualClock) -> None:
    scene = Scene(clock, 2)
    scene.set(1, COLLECTIVE)
    scene.stopped.add(0)
    scene.look()
    scene.look()
    first, second = scene.watch.report()
    assert (first.rank, first.stage, first.beat_seconds) == (0, "waiting", LOOK_SECONDS)
    assert (second.rank, second.stage, second.step, second.beat_seconds) == (1, "collective", 7, 0)
    assert scene.watch.beat_age == LOOK_SECONDS
