"""A stream that fails after it was accepted ends with a status that is not OK.

The reference is gRPC's own contract, a call succeeded if and only if its status is OK, as a client sees it
that knows nothing of our events.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import pytest

from albireo.client import Client
from albireo.contract.plan import Finish
from albireo.v1 import control_pb2
from tests.gateway.conftest import Backend, Served, eventually, request, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def end_of(call: Any) -> tuple[list[str], grpc.StatusCode, str]:
    """Kinds of events to the end, and the status."""
    kinds = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        while (event := await call.read()) is not grpc.aio.EOF:
            kinds.append(event.WhichOneof("event"))
    return kinds, await call.code(), await call.details() or ""


async def begun(served: Served, **sampling: object) -> Any:
    call = served.inference.Generate(request(**sampling), timeout=30)  # type: ignore[arg-type]
    assert (await call.read()).HasField("accepted")
    return call


@pytest.mark.parametrize("loss", ["epoch", "lease"])
async def test_a_lost_scheduler_is_unavailable_with_a_time_for_a_retry(served: Served, loss: str) -> None:
    call = await begun(served)
    if loss == "epoch":
        served.backend.open_epoch()
    else:
        served.backend.redis.delete(served.backend.keys.lease)
    kinds, code, details = await end_of(call)
    assert (kinds, code) == (["error"], grpc.StatusCode.UNAVAILABLE)
    assert "scheduler" in details
    assert int(dict(await call.trailing_metadata())["grpc-retry-pushback-ms"]) > 0


async def test_a_row_that_cannot_be_sampled_is_internal_without_a_retry(served: Served) -> None:
    call = await begun(served)
    served.backend.result([(1, 0, Finish.ERROR)], admitted={"r": 1})
    kinds, code, _ = await end_of(call)
    assert (kinds, code) == (["error"], grpc.StatusCode.INTERNAL)
    assert "grpc-retry-pushback-ms" not in dict(await call.trailing_metadata())


async def test_a_request_that_the_group_cannot_hold_is_a_failed_precondition(served: Served) -> None:
    call = await begun(served)
    served.backend.result(ended={"r": Finish.ERROR})
    kinds, code, _ = await end_of(call)
    assert (kinds, code) == (["error"], grpc.StatusCode.FAILED_PRECONDITION)


async def test_one_branch_that_fails_takes_no_token_from_the_others_and_shows_in_the_status(
    served: Served,
) -> None:
    call = await begun(served, n=2)
    served.backend.result([(1, 0, Finish.ERROR), (2, 50, Finish.NONE)], admitted={"r#0": 1, "r#1": 2})
    served.backend.result([(2, 51, Finish.STOP)])
    kinds, code, _ = await end_of(call)
    assert kinds[0] == "error"
    assert kinds[-1] == "finished"
    assert code is grpc.StatusCode.INTERNAL


async def test_an_end_by_the_servers_deadline_is_no_failure(backend: Backend) -> None:
    async with serving(backend, max_deadline_seconds=1) as served:
        kinds, code, _ = await end_of(await begun(served))
    assert (kinds, code) == (["finished"], grpc.StatusCode.OK)


async def test_a_gateway_that_stops_sends_its_own_status(backend: Backend) -> None:
    """Not gRPC's "Cancelling all calls"; streams, those that have not begun to bring tokens, and watchers."""
    async with serving(backend) as served:
        running = await begun(served)
        served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
        assert (await running.read()).HasField("tokens")
        waiting = served.inference.Generate(request(request_id="w"), timeout=30)
        await waiting.read()
        watcher = served.control.WatchSteps(control_pb2.WatchStepsRequest(), timeout=30)
        ends = [asyncio.create_task(end_of(call)) for call in (running, waiting)]
        steps = asyncio.create_task(_status(watcher))
        await eventually(lambda: served.gateway._control._limit.admitted == 3)  # the watcher, too
        await served.gateway.stop()
        for end in ends:
            assert await end == (["error"], grpc.StatusCode.UNAVAILABLE, "the gateway stops")
        assert await steps == (grpc.StatusCode.UNAVAILABLE, "the gateway stops")


async def _status(call: Any) -> tuple[grpc.StatusCode, str]:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call.read()
    return await call.code(), await call.details() or ""


async def test_our_client_yields_the_error_event_and_then_raises(served: Served) -> None:
    def read() -> tuple[list[str], grpc.RpcError | None]:
        kinds: list[str] = []
        with Client(f"127.0.0.1:{served.gateway.port}") as client:
            try:
                for event in client.generate("Hi", raw=True, request_id="r", timeout=30):
                    kinds.append(str(event.WhichOneof("event")))  # noqa: PERF401
            except grpc.RpcError as error:
                return kinds, error
        return kinds, None

    reading = asyncio.create_task(asyncio.to_thread(read))
    await eventually(lambda: bool(served.backend.inbox()))
    served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
    served.backend.open_epoch()
    kinds, error = await reading
    assert kinds[0] == "accepted"
    assert kinds[-1] == "error"
    assert error is not None
    assert error.code() is grpc.StatusCode.UNAVAILABLE
