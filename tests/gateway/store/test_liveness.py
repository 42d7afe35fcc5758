"""Which tiers are alive, and what they announce, in Redis and in memory."""

from __future__ import annotations

import asyncio

from gateway.store.interface import Liveness
from tests.gateway.store.scene import EXPIRED, KEYS, SHORT, TTL, Scene, in_store_time, request


@in_store_time
async def test_in_an_empty_store_only_the_gateway_itself_is_alive(scene: Scene) -> None:
    gateway = await scene.gateway()
    assert await gateway.check(TTL) == Liveness(True, leased=False, groups=0, model=None, epoch=0, load=None)


@in_store_time
async def test_a_check_sees_which_tiers_came_and_went(scene: Scene) -> None:
    gateway = await scene.serving()
    scene.open_group("x")
    scene.store.put(KEYS.served_model, b"model")
    scene.store.announce(KEYS.load, b"load", ttl=TTL)
    found = Liveness(True, leased=True, groups=2, model=b"model", epoch=1, load=b"load")
    assert await gateway.check(TTL) == found
    scene.close_group("w")
    assert (await gateway.check(TTL)).groups == 1
    scene.close_group("x")
    scene.end_scheduler()
    assert await gateway.check(TTL) == found._replace(leased=False, groups=0)


@in_store_time
async def test_in_a_new_epoch_a_group_serves_once_it_is_opened_again(scene: Scene) -> None:
    gateway = await scene.serving()
    scene.open_epoch()
    found = await gateway.check(TTL)
    assert (found.groups, found.epoch) == (0, 2)
    scene.open_group()
    assert (await gateway.check(TTL)).groups == 1


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
    assert await gateway.load() is None
    scene.store.announce(KEYS.load, b"load", ttl=TTL)
    for group, rank in (("w", 0), ("w", 2), ("x", 0)):
        scene.store.announce(KEYS.gpu(group, rank), f"{group} {rank}".encode(), ttl=TTL)
    assert await gateway.load() == b"load"
    assert await gateway.gpus([]) == []
    assert await gateway.gpus([("w", 0), ("w", 1), ("w", 2), ("x", 0)]) == [b"w 0", None, b"w 2", b"x 0"]
