"""Groups that come and go under a running gateway, and logs in which something is missing; a real Redis."""

from __future__ import annotations

import logging

import grpc
import pytest

from albireo.contract.plan import Finish
from albireo.store.interface import EntryId
from albireo.store.redis_log import FIELD
from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from tests.gateway.conftest import GROUP, Backend, Served, eventually, request, rest_of, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def started(served: Served, request_id: str = "r") -> grpc.aio.UnaryStreamCall:  # type: ignore[type-arg]
    call = served.inference.Generate(request(request_id=request_id, max_tokens=9), timeout=30)
    assert (await call.read()).HasField("accepted")
    return call


def ids_of(events: list[api.GenerateEvent]) -> list[int]:
    return [token for event in events for token in event.tokens.ids]


async def test_a_request_moves_to_a_group_that_joined_later(served: Served) -> None:
    backend = served.backend
    call = await started(served)
    backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
    backend.open_group("late")
    backend.close_group()
    backend.result([(1, 51, Finish.NONE)], admitted={"r": 1}, num_outputs=1, group="late")
    backend.result([(1, 52, Finish.LENGTH)], group="late")
    events = await rest_of(call)
    assert ids_of(events) == [50, 51, 52]
    assert events[-1].finished.usage.completion_tokens == 3
    await served.reads_all()
    assert set(served.at.reader.position.groups) == {"late"}


async def test_a_group_that_opens_and_closes_between_two_reads_is_read_to_its_end(served: Served) -> None:
    backend = served.backend
    call = await started(served)
    backend.open_group("short")  # from here on the gateway has no turn
    backend.result([(1, 50, Finish.NONE)], admitted={"r": 1}, group="short")
    backend.close_group("short")
    backend.result([(1, 51, Finish.LENGTH)], admitted={"r": 1}, num_outputs=1)
    assert ids_of(await rest_of(call)) == [50, 51]
    await served.reads_all()


async def test_a_request_waits_while_no_group_is_there(served: Served) -> None:
    backend = served.backend
    backend.close_group()
    calls = [await started(served, name) for name in ("ended", "runs")]
    backend.end_waiting("ended", Finish.DEADLINE)
    assert (await rest_of(calls[0]))[-1].finished.reason == api.FINISH_REASON_DEADLINE
    backend.open_group("next")
    backend.result([(1, 50, Finish.LENGTH)], admitted={"runs": 1}, group="next")
    assert ids_of(await rest_of(calls[1])) == [50]


async def test_a_request_that_no_group_can_hold_is_refused(served: Served) -> None:
    call = await started(served)
    served.backend.end_waiting("r", Finish.ERROR)
    [last] = await rest_of(call)
    assert last.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert "no worker group can hold" in last.error.message


async def test_steps_have_the_names_of_their_groups(backend: Backend) -> None:
    """Of one that was open before the gateway, and of one that opens later."""
    load = control.Load(groups=[control.GroupLoad(name="early", incarnation=GROUP)])
    backend.redis.set(backend.keys.load, load.SerializeToString())
    async with serving(backend) as served:
        watch = served.control.WatchSteps(control.WatchStepsRequest(), timeout=30)
        await eventually(lambda: len(served.gateway.models.get("").steps._watchers) == 1)
        backend.result()
        backend.open_group("late")
        backend.result(group="late")
        records = [await watch.read() for _ in range(2)]
        assert [(record.group, record.step) for record in records] == [("early", 1), ("LATE", 1)]
        watch.cancel()


async def test_a_gateway_follows_no_group_that_the_next_epoch_does_not_lead(served: Served) -> None:
    served.backend.open_group("lost")
    await served.reads_all()
    served.backend.open_epoch()
    await served.reads_all()
    assert set(served.at.reader.position.groups) == {GROUP}


async def served_again(served: Served) -> None:
    """A group that has joined meanwhile serves a new request."""
    served.backend.open_group("another")
    call = await started(served, "again")
    served.backend.result([(1, 60, Finish.LENGTH)], admitted={"again": 1}, group="another")
    assert ids_of(await rest_of(call)) == [60]


async def test_streams_fail_where_results_are_gone_before_they_were_read(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    call = await started(served)
    served.backend.close_group(lost=True)
    last = (await rest_of(call))[-1]
    assert last.error.retryable
    assert f"results of groups {GROUP} are gone, unread" in caplog.text
    await served_again(served)


@pytest.mark.parametrize("event", ["trimmed", "unreadable"])
async def test_streams_fail_where_a_notice_is_missing(
    served: Served, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have opened a group."""
    backend = served.backend
    call = await started(served)
    notices = backend.position.notices
    missing = EntryId(notices.epoch, notices.step + 1)
    backend._notices = missing
    if event == "unreadable":
        with caplog.at_level(logging.CRITICAL):
            backend.redis.xadd(backend.keys.notices, {FIELD: b"\xff"}, id=str(missing))
            last = (await rest_of(call))[-1]
    else:
        backend.open_group("behind it")
        last = (await rest_of(call))[-1]
    assert last.error.retryable
    await served_again(served)
