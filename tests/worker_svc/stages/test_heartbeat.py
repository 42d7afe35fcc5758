"""What a rank says of itself to the scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from albireo.contract.keys import Keys
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from worker_svc.stages.heartbeat import BEAT_TTL_SECONDS, Heartbeat
from worker_svc.stages.step_watch import StepWatch

KEYS = Keys("m")
KEY = KEYS.rank("incarnation", 1)
WAITING, COMPUTING, COLLECTIVE = log.RANK_STAGE_WAITING, log.RANK_STAGE_COMPUTING, log.RANK_STAGE_COLLECTIVE


@dataclass
class Peers:
    """A group of which the test says who is in a collective."""

    rank: int = 1
    size: int = 2
    begun: int = 0
    ended: int = 0

    def barrier(self) -> None: ...


class Scene:
    def __init__(self, clock: VirtualClock, *, asynchronous: bool = False, size: int = 2) -> None:
        self.clock = clock
        self.store = MemoryStore(Keyspace(clock), KEYS)
        self.watch, self.peers = StepWatch(clock), Peers(size=size)
        self.heart = Heartbeat(self.store, KEY, self.watch, self.peers, clock, asynchronous=asynchronous)

    def beat(self, after: float = 0.25) -> log.RankBeat:
        """What can be read after the next beat."""
        self.clock.sleep(after)
        self.heart.beat()
        [data] = self.store.get([KEY])
        assert data is not None
        return log.RankBeat.FromString(data)

    def stage(self) -> tuple[log.RankStage, float]:
        beat = self.beat()
        return beat.stage, beat.seconds


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


def test_each_beat_counts_and_can_be_read_for_a_while(clock: VirtualClock) -> None:
    scene = Scene(clock)
    assert [scene.beat().count for _ in range(3)] == [1, 2, 3]
    clock.sleep(BEAT_TTL_SECONDS - 1)
    assert scene.store.get([KEY]) != [None]
    clock.sleep(2)
    assert scene.store.get([KEY]) == [None]


def test_the_stage_is_that_of_the_newest_step(clock: VirtualClock) -> None:
    scene = Scene(clock)
    assert scene.beat().stage == WAITING
    scene.watch.begin(7)
    found = scene.beat()
    assert (found.stage, found.step) == (COMPUTING, 7)
    scene.peers.begun += 1
    assert scene.beat().stage == COLLECTIVE
    scene.peers.ended += 1
    assert scene.beat().stage == COMPUTING
    scene.watch.end()
    found = scene.beat()
    assert (found.stage, found.step) == (WAITING, 7)


def test_seconds_count_while_nothing_moves(clock: VirtualClock) -> None:
    scene = Scene(clock)
    scene.watch.begin(1)
    scene.peers.begun += 1
    assert [scene.stage() for _ in range(3)] == [(COLLECTIVE, 0), (COLLECTIVE, 0.25), (COLLECTIVE, 0.5)]
    scene.peers.ended += 1
    scene.peers.begun += 1  # it has left that one, and is in the next
    assert [scene.stage() for _ in range(2)] == [(COLLECTIVE, 0), (COLLECTIVE, 0.25)]
    scene.watch.begin(2)  # on a GPU, the one before has not ended
    assert scene.stage() == (COLLECTIVE, 0)


@pytest.mark.parametrize(("size", "stage"), [(2, COLLECTIVE), (1, COMPUTING)])
def test_where_the_host_only_launches_collectives_each_step_may_be_in_one(
    clock: VirtualClock, size: int, stage: log.RankStage
) -> None:
    scene = Scene(clock, asynchronous=True, size=size)
    scene.watch.begin(1)
    assert [scene.stage() for _ in range(2)] == [(stage, 0), (stage, 0.25)]


def test_a_store_that_does_not_answer_costs_a_beat(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(clock)
    scene.beat()

    def gone(*arguments: object, **options: object) -> None:
        raise RedisConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(scene.store, "announce", gone)
        scene.heart.beat()
    assert scene.beat().count == 3
