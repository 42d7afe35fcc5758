"""When a gateway serves, as its watch finds it, and what its streams need."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from albireo.runtime.clock import SYSTEM_CLOCK
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log
from gateway.liveness.backend_load import BackendLoad
from gateway.liveness.served_model import ServedModel
from gateway.liveness.watch import Watch
from gateway.store.heartbeat import Heartbeat
from gateway.store.interface import GatewayStore, Liveness, Position
from gateway.streams.results_reader import ResultsReader
from gateway.streams.router import Router
from tests.gateway.streams.test_stream import Scene

OURS = "ours"
EPOCH = 5
MODEL = log.ServedModel(fingerprint=OURS).SerializeToString()
OTHER = log.ServedModel(fingerprint="another").SerializeToString()


class FoundStore:
    """Answers the watch's checks in turn."""

    gateway_id = "gateway"

    def __init__(self, *found: Liveness) -> None:
        self._found = iter(found)
        self.during: Callable[[], None] = lambda: None
        """Called within each check."""
        self.on_end: Callable[[], None] = lambda: None

    async def start_heartbeat(self, ttl: float) -> None:
        """It never expires."""

    async def position(self) -> Position:
        return Position(EntryId(1, 0), {})

    async def check(self, ttl: float) -> Liveness:
        self.during()
        found = next(self._found)
        if self._found.__length_hint__() == 0:
            self.on_end()
        return found


def alive(**changes: object) -> Liveness:
    found = Liveness(heartbeat_kept=True, leased=True, groups=2, model=MODEL, epoch=EPOCH, load=None)
    return found._replace(**changes)  # type: ignore[arg-type]


async def watched(store: FoundStore, router: Router) -> list[bool]:
    """Whether the gateway served, at every change until the store has nothing more to say."""
    changes: list[bool] = []
    shared = cast("GatewayStore", store)
    heartbeat = Heartbeat(shared, SYSTEM_CLOCK)
    await heartbeat.start()
    watch = Watch(
        shared,
        SYSTEM_CLOCK,
        "model m",
        router=router,
        reader=ResultsReader(shared, SYSTEM_CLOCK, router, heartbeat, lambda *_: None),
        model=ServedModel(OURS),
        load=BackendLoad(),
        heartbeat=heartbeat,
        on_alive=lambda: changes.append(watch.serving),
    )
    store.on_end = watch.stop
    await watch.run()
    return changes


def streaming(router: Router) -> Scene:
    router.restart(EPOCH)
    stream = Scene()
    router.register(stream)
    router.bind(stream, EPOCH)
    return stream


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.liveness.watch.WATCH_SECONDS", 0.01)


@pytest.mark.parametrize(
    "missing", [{"leased": False}, {"groups": 0}, {"model": None}, {"model": OTHER}, {"model": b"\xff"}]
)
async def test_a_gateway_serves_with_a_scheduler_and_a_group_of_its_checkpoint(
    missing: dict[str, object],
) -> None:
    router = Router()
    stream = streaming(router)
    store = FoundStore(alive(), alive(**missing), alive())
    assert await watched(store, router) == [True, False, True]
    mismatch = missing.get("model") == OTHER
    assert (stream.failure is not None) == mismatch  # all else may pass


async def test_logs_that_begin_again_end_the_streams() -> None:
    router = Router()
    stream = streaming(router)
    await watched(FoundStore(alive(), alive(epoch=1)), router)
    assert stream.failure is not None
    assert router.epoch == 1


async def test_an_epoch_that_begins_during_the_check_is_no_replaced_log() -> None:
    router = Router()
    router.restart(EPOCH)
    store = FoundStore(alive())
    later = Scene()

    def begin() -> None:
        router.open_epoch(EPOCH + 1)
        router.register(later)
        router.bind(later, EPOCH + 1)

    store.during = begin
    await watched(store, router)
    assert later.failure is None
    assert router.epoch == EPOCH + 1
