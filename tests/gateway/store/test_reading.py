"""How a gateway reads notices and results, in Redis and in memory."""

from __future__ import annotations

import asyncio

from albireo.store.interface import LAST_STEP, EntryId, LogEntry
from albireo.v1 import log_pb2 as log
from gateway.store.interface import Entries, Position
from tests.gateway.store.scene import KEYS, SHORT, Scene, in_store_time

NONE = EntryId(0, 0)
OPENED = Position(EntryId(1, 1), {"w": EntryId(1, 0)})
"""Behind all that ``Scene.serving`` leaves in the logs."""


def ids(entries: list[LogEntry]) -> list[str]:
    return [entry_id.decode() for entry_id, _ in entries]


@in_store_time
async def test_a_position_is_the_end_of_the_notices_and_of_each_groups_results(scene: Scene) -> None:
    gateway = await scene.gateway()
    assert await gateway.position() == Position(NONE, {})
    scene.begin_scheduler()
    scene.open_epoch()
    assert await gateway.position() == Position(EntryId(1, 0), {})
    for group in ("x", "w"):
        scene.open_group(group)
    scene.append_result(7, b"r", group="x")
    assert await gateway.position() == Position(EntryId(1, 2), {"w": EntryId(1, 0), "x": EntryId(1, 7)})


@in_store_time
async def test_groups_that_do_not_serve_have_no_position(scene: Scene) -> None:
    gateway = await scene.serving()
    scene.open_group("x")
    scene.close_group("w")
    assert await gateway.position() == Position(EntryId(1, 3), {"x": EntryId(1, 0)})
    scene.open_epoch()
    assert await gateway.position() == Position(EntryId(2, 0), {})


@in_store_time
async def test_entries_come_in_order_from_behind_a_position(scene: Scene) -> None:
    gateway = await scene.serving()
    scene.open_group("x")
    for step in (9, 10, 11):
        scene.append_result(step, b"%d" % step)
    scene.append_result(1, b"x", group="x")
    scene.append_notice(b"n")
    found = await gateway.read(Position(EntryId(1, 2), {"w": EntryId(1, 9), "x": EntryId(1, 0)}), 0)
    assert found == Entries(
        {"w": [(b"1-10", b"10"), (b"1-11", b"11")], "x": [(b"1-1", b"x")]}, [(b"1-3", b"n")]
    )
    found = await gateway.read(Position(EntryId(1, 3), {"w": EntryId(1, 10), "x": EntryId(1, 5)}), 0)
    assert found == Entries({"w": [(b"1-11", b"11")]}, [])


@in_store_time
async def test_a_read_has_all_entries_however_many_they_are(scene: Scene) -> None:
    """Of a part of the results, and all notices, an end would come before its tokens."""
    gateway = await scene.serving()
    writer = scene.store.log(KEYS.results("w"), keep=10_000)
    for step in range(1, 1501):
        writer.append(EntryId(1, step), b"r")
    assert len((await gateway.read(OPENED, 0)).results["w"]) == 1500


@in_store_time
async def test_what_a_group_brought_before_its_end_is_read_before_it(scene: Scene) -> None:
    gateway = await scene.serving()
    scene.append_result(1, b"last")
    scene.close_group()
    found = await gateway.read(OPENED, 0)
    assert ids(found.results["w"]) == ["1-1", f"1-{LAST_STEP}"]
    assert [log.Notice.FromString(data).group_closed.group for _, data in found.notices] == ["w"]


@in_store_time
async def test_a_blocked_read_does_not_learn_of_an_end_before_the_results(scene: Scene) -> None:
    """Redis before 7.2 answers it with the log alone that was written to first."""
    gateway = await scene.serving()
    blocked = asyncio.create_task(gateway.read(OPENED, 3))
    await asyncio.sleep(SHORT)
    scene.close_group()
    found = await blocked
    assert ids(found.results["w"]) == [f"1-{LAST_STEP}"]
    notices = found.notices or (await gateway.read(Position(OPENED.notices, {}), 0)).notices
    assert ids(notices) == ["1-2"]


@in_store_time
async def test_a_group_whose_log_is_gone_has_no_results(scene: Scene) -> None:
    gateway = await scene.serving()
    scene.append_notice(b"n")
    assert await gateway.read(Position(EntryId(1, 1), {"gone": EntryId(1, 5)}), 0) == Entries(
        {}, [(b"1-2", b"n")]
    )


@in_store_time
async def test_a_read_without_new_entries_returns_after_its_wait(scene: Scene) -> None:
    gateway = await scene.serving()
    began = asyncio.get_running_loop().time()
    assert await gateway.read(OPENED, SHORT) == Entries({}, [])
    assert asyncio.get_running_loop().time() - began >= 0.9 * SHORT


@in_store_time
async def test_an_append_wakes_all_gateways_that_read(scene: Scene) -> None:
    gateways = [await scene.serving(), await scene.gateway("b")]
    reads = [asyncio.create_task(gateway.read(OPENED, 3)) for gateway in gateways]
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(SHORT)
    assert not any(read.done() for read in reads)
    scene.append_result(1, b"new")
    assert await asyncio.gather(*reads) == [Entries({"w": [(b"1-1", b"new")]}, [])] * 2
    assert asyncio.get_running_loop().time() - began < 2


@in_store_time
async def test_a_notice_wakes_a_gateway_without_groups(scene: Scene) -> None:
    scene.begin_scheduler()
    scene.open_epoch()
    gateway = await scene.gateway()
    read = asyncio.create_task(gateway.read(Position(EntryId(1, 0), {}), 3))
    await asyncio.sleep(SHORT)
    scene.append_notice(b"new")
    assert await read == Entries({}, [(b"1-1", b"new")])


@in_store_time
async def test_a_read_that_is_cancelled_leaves_the_store_usable(scene: Scene) -> None:
    gateway = await scene.serving()
    read = asyncio.create_task(gateway.read(OPENED, 3))
    await asyncio.sleep(SHORT)
    read.cancel()
    await asyncio.gather(read, return_exceptions=True)
    scene.append_result(1, b"new")
    assert await gateway.read(OPENED, 1) == Entries({"w": [(b"1-1", b"new")]}, [])
