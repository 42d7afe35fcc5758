"""How a gateway reads the results log, in Redis and in memory."""

from __future__ import annotations

import asyncio

from albireo.store.interface import EntryId
from tests.gateway.store.scene import SHORT, Scene, in_store_time


@in_store_time
async def test_the_last_result_is_the_newest_entry(scene: Scene) -> None:
    gateway = await scene.gateway()
    assert await gateway.last_result() == EntryId(0, 0)
    scene.append_result(1, 1, b"first")
    scene.append_result(1, 2, b"second")
    assert await gateway.last_result() == EntryId(1, 2)


@in_store_time
async def test_an_epoch_that_was_opened_is_a_result(scene: Scene) -> None:
    gateway = await scene.serving()
    [(entry_id, _)] = await gateway.read_results(EntryId(0, 0), 0)
    assert EntryId.parse(entry_id) == await gateway.last_result() == EntryId(1, 0)


@in_store_time
async def test_results_come_in_order_from_behind_an_id(scene: Scene) -> None:
    gateway = await scene.gateway()
    for step in (9, 10, 11):
        scene.append_result(1, step, b"%d" % step)
    scene.append_result(2, 1, b"next epoch")
    assert await gateway.read_results(EntryId(1, 9), 0) == [
        (b"1-10", b"10"),
        (b"1-11", b"11"),
        (b"2-1", b"next epoch"),
    ]
    assert await gateway.read_results(EntryId(1, 50), 0) == [(b"2-1", b"next epoch")]


@in_store_time
async def test_a_read_without_new_results_returns_after_its_wait(scene: Scene) -> None:
    gateway = await scene.gateway()
    scene.append_result(1, 1, b"old")
    began = asyncio.get_running_loop().time()
    assert await gateway.read_results(EntryId(1, 1), SHORT) == []
    assert asyncio.get_running_loop().time() - began >= 0.9 * SHORT


@in_store_time
async def test_an_append_wakes_all_gateways_that_read(scene: Scene) -> None:
    gateways = [await scene.gateway(name) for name in ("a", "b")]
    reads = [asyncio.create_task(gateway.read_results(EntryId(0, 0), 3)) for gateway in gateways]
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(SHORT)
    assert not any(read.done() for read in reads)
    scene.append_result(1, 1, b"new")
    assert await asyncio.gather(*reads) == [[(b"1-1", b"new")]] * 2
    assert asyncio.get_running_loop().time() - began < 2


@in_store_time
async def test_a_read_that_is_cancelled_leaves_the_store_usable(scene: Scene) -> None:
    gateway = await scene.gateway()
    read = asyncio.create_task(gateway.read_results(EntryId(0, 0), 3))
    await asyncio.sleep(SHORT)
    read.cancel()
    await asyncio.gather(read, return_exceptions=True)
    scene.append_result(1, 1, b"new")
    assert await gateway.read_results(EntryId(0, 0), 1) == [(b"1-1", b"new")]
