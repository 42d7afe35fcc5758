"""What becomes of submissions, in Redis and in memory."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from albireo.contract.keys import Keys
from albireo.store.interface import TenantReport
from tests.gateway.store.scene import EXPIRED, KEYS, SHORT, Scene, in_store_time, request


@in_store_time
async def test_an_accepted_request_stands_in_the_inbox_and_belongs_to_the_epoch(scene: Scene) -> None:
    gateway = await scene.serving()
    assert await gateway.submit(request("r")) == ("accepted", 1)
    scene.open_epoch()
    assert await gateway.submit(request("s")) == ("accepted", 2)
    assert scene.inbox() == [b"r", b"s"]


@in_store_time
async def test_the_time_of_an_entry_is_the_stores(scene: Scene) -> None:
    gateway = await scene.serving()
    before = scene.store.time()
    await gateway.submit(request("r"))
    after = scene.store.time()
    [(entry_id, _)] = scene.store.log(KEYS.inbox).read("0-0", 0)
    assert before - 0.05 <= int(entry_id.partition(b"-")[0]) / 1000 <= after + 0.05


@in_store_time
async def test_an_id_is_accepted_once_an_epoch(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request(digest="d"))
    assert await gateway.submit(request(digest="d")) == ("duplicate", 1)
    assert await gateway.submit(request(digest="other")) == ("conflict", 1)
    scene.open_epoch()
    assert await gateway.submit(request(digest="other")) == ("conflict", 2)
    assert await gateway.submit(request(digest="d", name="again")) == ("accepted", 2)
    assert scene.inbox() == [b"r", b"again"]


@in_store_time
async def test_an_id_is_free_again_when_its_record_has_expired(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request(record_seconds=SHORT))
    await asyncio.sleep(EXPIRED)
    assert await gateway.submit(request(digest="other")) == ("accepted", 1)


@in_store_time
async def test_the_queue_holds_so_many_branches(scene: Scene) -> None:
    gateway = await scene.serving()
    assert await gateway.submit(request("r", branches=3, max_queue=4)) == ("accepted", 1)
    assert await gateway.submit(request("s", branches=2, max_queue=4)) == ("full", 1)
    assert await gateway.submit(request("t", branches=1, max_queue=4)) == ("accepted", 1)
    scene.store.count_departures(epoch=1, total=2)
    assert await gateway.submit(request("s", branches=2, max_queue=4)) == ("accepted", 1)
    assert scene.inbox() == [b"r", b"t", b"s"]


@in_store_time
async def test_a_tenant_alone_has_all_places_of_the_queue(scene: Scene) -> None:
    gateway = await scene.serving()
    for bound in (*range(1, 20), 128):
        scene.open_epoch()  # with an empty queue
        whole: dict[str, Any] = {"tenant": "a", "max_queue": bound}
        assert (await gateway.submit(request(f"{bound}", branches=bound, **whole)))[0] == "accepted"
        assert (await gateway.submit(request(f"{bound}+", **whole)))[0] == "full"


@in_store_time
async def test_a_tenant_that_fills_the_queue_keeps_no_other_out(scene: Scene) -> None:
    """Others have an eighth more. What it leaves goes to them first."""
    gateway = await scene.serving()
    names = map(str, itertools.count())

    async def fill(tenant: str) -> int:
        """As many of its requests as are accepted."""
        for accepted in itertools.count():
            verdict, _ = await gateway.submit(request(next(names), tenant=tenant, max_queue=64))
            if verdict == "full":
                return accepted
        raise AssertionError

    assert await fill("flood") == 64
    assert await fill("a") == 7
    assert await fill("b") == 0
    scene.store.count_departures(epoch=1, total=8)
    scene.store.report_tenants({"flood": TenantReport(8, 8, 0)}, epoch=1, number=1)
    assert await fill("flood") == 1
    assert await fill("b") == 7


@in_store_time
async def test_places_are_free_before_the_report_of_their_tenant(scene: Scene) -> None:
    gateway = await scene.serving()
    assert (await gateway.submit(request("r", branches=8, max_queue=8)))[0] == "accepted"
    scene.store.count_departures(epoch=1, total=8)
    assert (await gateway.submit(request("s", branches=8, max_queue=8)))[0] == "accepted"


@in_store_time
async def test_a_new_epoch_begins_with_an_empty_queue(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request("r", branches=4, max_queue=4))
    scene.open_epoch()
    assert await gateway.submit(request("s", branches=4, max_queue=4)) == ("accepted", 2)


@in_store_time
async def test_without_a_heartbeat_of_its_gateway_no_request_is_accepted(scene: Scene) -> None:
    await scene.serving()
    other = await scene.gateway("b", ttl=0)
    assert await other.submit(request()) == ("no_gateway", 1)
    await other.start_heartbeat(SHORT)
    await asyncio.sleep(EXPIRED)
    assert await other.submit(request()) == ("no_gateway", 1)
    assert scene.inbox() == []


@in_store_time
async def test_without_a_scheduler_no_request_is_accepted(scene: Scene) -> None:
    gateway = await scene.serving()
    scene.end_scheduler()
    assert await gateway.submit(request()) == ("no_scheduler", 1)
    assert scene.inbox() == []


@in_store_time
async def test_without_a_group_requests_are_accepted(scene: Scene) -> None:
    scene.begin_scheduler()
    scene.open_epoch()
    gateway = await scene.gateway()
    assert await gateway.submit(request()) == ("accepted", 1)


@in_store_time
async def test_what_a_dead_gateway_left_is_cancelled_before_its_id_is_taken_again(scene: Scene) -> None:
    await scene.serving()
    dead = await scene.gateway("b")
    await dead.submit(request(name="first"))
    gateway = scene.gateways[0]
    assert await gateway.submit(request(name="second", digest="other")) == ("conflict", 1)
    await dead.stop_heartbeat()
    assert await gateway.submit(request(name="second", digest="other")) == ("accepted", 1)
    assert scene.inbox() == [b"first", b"-first", b"second"]


@in_store_time
async def test_an_id_that_ended_under_a_dead_gateway_stays_taken(scene: Scene) -> None:
    gateway = await scene.serving()
    dead = await scene.gateway("b")
    await dead.submit(request())
    await dead.note_end("r", request().cancellation)
    await dead.stop_heartbeat()
    assert await gateway.submit(request()) == ("duplicate", 1)
    assert await gateway.submit(request(digest="other")) == ("conflict", 1)


@in_store_time
async def test_models_do_not_share_ids(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request())
    other = await scene.gateway("a", keys=Keys("other"))
    assert await other.submit(request()) == ("no_scheduler", 0)
