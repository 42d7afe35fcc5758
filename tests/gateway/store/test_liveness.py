"""Which tiers are alive, and what they announce, in Redis and in memory."""

from __future__ import annotations

import asyncio

from albireo.contract.keys import Keys
from gateway.store.interface import Liveness
from tests.gateway.store.scene import EXPIRED, KEYS, SHORT, TTL, Scene, in_store_time, request


@in_store_time
async def test_in_an_empty_store_only_the_gateway_itself_is_alive(scene: Scene) -> None:
    gateway = await scene.gateway()
    assert await gateway.check(TTL) == Liveness(True, leased=False, group=None, serving=False, epoch=0)


@in_store_time
async def test_a_check_sees_which_tiers_came_and_went(scene: Scene) -> None:
    gateway = await scene.serving()
    assert await gateway.check(TTL) == Liveness(True, leased=True, group=b"group", serving=True, epoch=1)
    scene.open_epoch(group="")
    scene.end_scheduler()
    assert await gateway.check(TTL) == Liveness(True, leased=False, group=b"group", serving=False, epoch=2)


@in_store_time
async def test_a_group_that_stops_announcing_itself_is_gone(scene: Scene) -> None:
    gateway = await scene.gateway()
    scene.begin_group()
    assert (await gateway.check(TTL)).group == b"group"
    scene.store.announce(KEYS.group, b"group", ttl=SHORT)
    await asyncio.sleep(EXPIRED)
    assert (await gateway.check(TTL)).group is None


@in_store_time
async def test_a_check_keeps_the_heartbeat_alive(scene: Scene) -> None:
    gateway = await scene.gateway(ttl=SHORT)
    await gateway.check(TTL)
    await asyncio.sleep(EXPIRED)
    assert (await gateway.check(TTL)).heartbeat_kept


@in_store_time
async def test_a_heartbeat_that_has_expired_is_noticed_once(scene: Scene) -> None:
    gateway = await scene.gateway(ttl=SHORT)
    await asyncio.sleep(EXPIRED)
    assert not (await gateway.check(TTL)).heartbeat_kept
    assert (await gateway.check(TTL)).heartbeat_kept


@in_store_time
async def test_gateways_have_heartbeats_of_their_own(scene: Scene) -> None:
    gateway = await scene.serving()
    other = await scene.gateway("b")
    await gateway.stop_heartbeat()
    assert await gateway.submit(request()) == ("no_gateway", 1)
    assert (await other.check(TTL)).heartbeat_kept
    assert await other.submit(request()) == ("accepted", 1)


@in_store_time
async def test_load_and_gpus_are_what_was_announced(scene: Scene) -> None:
    gateway = await scene.gateway()
    assert await gateway.load(2) == (None, [])
    scene.store.announce(KEYS.load, b"load", ttl=TTL)
    for rank in (0, 2, 3):
        scene.store.announce(KEYS.gpu(rank), b"gpu %d" % rank, ttl=TTL)
    assert await gateway.load(0) == (b"load", [])
    assert await gateway.load(3) == (b"load", [b"gpu 0", b"gpu 2"])


@in_store_time
async def test_models_are_those_with_a_scheduler(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request())
    assert await gateway.models() == {"m"}
    scene.store.announce(Keys("org/other-2.5").lease, b"another", ttl=TTL)
    assert await gateway.models() == {"m", "org/other-2.5"}
    scene.end_scheduler()
    assert await gateway.models() == {"org/other-2.5"}
