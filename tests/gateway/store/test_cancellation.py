"""What becomes of cancellations and of ends, in Redis and in memory."""

from __future__ import annotations

from tests.gateway.store.scene import Scene, in_store_time, request


@in_store_time
async def test_a_known_request_is_cancelled_by_its_id(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request(name="named"))
    assert await gateway.cancel_known("r") == "cancelled"
    assert await gateway.cancel_known("another") == "unknown"
    assert scene.inbox() == [b"named", b"-named"]


@in_store_time
async def test_any_gateway_can_cancel_it(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request())
    other = await scene.gateway("b")
    assert await other.cancel_known("r") == "cancelled"


@in_store_time
async def test_a_request_whose_end_is_noted_is_not_known(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request())
    await gateway.note_end("r", b"-an earlier acceptance")
    assert await gateway.cancel_known("r") == "cancelled"
    for _ in range(2):
        await gateway.note_end("r", request().cancellation)
        assert await gateway.cancel_known("r") == "unknown"
    assert await gateway.submit(request()) == ("duplicate", 1)


@in_store_time
async def test_a_request_of_an_earlier_epoch_is_not_known(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request())
    scene.open_epoch()
    assert await gateway.cancel_known("r") == "unknown"
    assert scene.inbox() == [b"r"]


@in_store_time
async def test_without_a_scheduler_nothing_is_cancelled(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request())
    scene.end_scheduler()
    assert await gateway.cancel_known("r") == "no_scheduler"
    assert await gateway.cancel_known("another") == "unknown"
    await gateway.cancel(b"-r")
    await gateway.withdraw("r", b"-r")
    assert scene.inbox() == [b"r"]


@in_store_time
async def test_a_cancellation_is_appended_whether_its_request_is_known_or_not(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.cancel(b"-r#1")
    assert scene.inbox() == [b"-r#1"]


@in_store_time
async def test_a_withdrawn_request_leaves_its_id_free(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request())
    await gateway.withdraw("r", request().cancellation)
    assert await gateway.cancel_known("r") == "unknown"
    assert await gateway.submit(request(name="other", digest="other")) == ("accepted", 1)
    assert scene.inbox() == [b"r", b"-r", b"other"]


@in_store_time
async def test_a_submission_that_is_withdrawn_late_does_not_free_the_id_of_the_next(scene: Scene) -> None:
    gateway = await scene.serving()
    await gateway.submit(request(name="second"))
    await gateway.withdraw("r", b"-first")
    assert await gateway.submit(request()) == ("duplicate", 1)
    assert scene.inbox() == [b"second", b"-first"]
