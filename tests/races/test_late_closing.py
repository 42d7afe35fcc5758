"""A scheduler that stands still after it has closed a group, for longer than the closed logs last."""

from __future__ import annotations

from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape
from albireo.runtime.clock import Clock
from albireo.store.interface import CLOSED_LOG_SECONDS, GroupOpening, Store
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from tests.races.cluster import VirtualCluster
from tests.races.scene import Scene
from tests.scheduler_svc.core.samples import prompt


class PausingStore(MemoryStore):
    """The scheduler stands still right after it has closed a group."""

    def __init__(self, space: Keyspace, keys: Keys, clock: Clock) -> None:
        super().__init__(space, keys)
        self._clock = clock

    def close_group(self, opening: GroupOpening, reason: str, *, notice: int, lease_value: bytes) -> None:
        super().close_group(opening, reason, notice=notice, lease_value=lease_value)
        self._clock.sleep(CLOSED_LOG_SECONDS + 1)


class PausingCluster(VirtualCluster):
    """Its stores are such."""

    def open_store(self, keys: Keys) -> Store:
        return PausingStore(self.space, keys, self.clock)


def test_requests_of_a_group_whose_closing_expired_unread_go_on_in_another() -> None:
    with VirtualClock() as clock:
        scene = Scene(PausingCluster(clock), shape=GroupShape(64, 4, 256))
        scene.submit("a", prompt(20), max_tokens=12)
        first, _ = scene.fill()
        scene.group.answer(first)
        scene.cluster.wait_read()
        scene.reader.read()
        scene.group.lease.release()
        scene.group.wait_closed()
        scene.groups.remove(scene.group)
        clock.sleep(CLOSED_LOG_SECONDS + 1)
        scene.add_group()
        plans = scene.finish()
        assert [a.num_outputs for plan in plans for a in plan.admissions] == [1]
        assert scene.story("a") == scene.alone("a")
        scene.close()
