"""A gateway before two cells, each with a scheduler and groups of the same model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from albireo.contract.keys import MODELS
from albireo.contract.plan import Finish
from albireo.local.ports import free_port
from albireo.v1 import control_pb2
from albireo.v1 import inference_pb2 as api
from albireo.v1.control_pb2 import GroupLoad, Load
from tests.gateway.conftest import GROUP, Backend, Served, eventually, request, rest_of, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def second(backend: Backend) -> Iterator[Backend]:
    """Scheduler and group of the second cell: another database of the same server."""
    found = Backend(f"{backend.url}?db=1")
    yield found
    found.redis.close()


@pytest_asyncio.fixture(loop_scope="session")
async def served(backend: Backend, second: Backend) -> AsyncIterator[Served]:
    async with serving(backend, cells=second.url) as found:
        await both_serve(found)
        yield found


async def both_serve(served: Served) -> None:
    backends = served.gateway.models.get("").backends
    await eventually(lambda: all(backend.watch.serving for backend in backends))


async def accepted(served: Served, request_id: str = "") -> Any:
    call = served.inference.Generate(request(request_id=request_id), timeout=30)
    assert (await call.read()).HasField("accepted")
    return call


async def taken(served: Served, request_id: str) -> None:
    """Asserts that an id is refused since it was accepted before."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await served.inference.Generate(request(request_id=request_id), timeout=10).read()
    assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_requests_go_to_the_cell_with_the_fewest_for_each_slot(
    served: Served, backend: Backend, second: Backend
) -> None:
    backend.announce_load(Load(slots_total=8, running=8, waiting=4))
    second.announce_load(Load(slots_total=4, running=4))
    loads = [at.load for at in served.gateway.models.get("").backends]
    await eventually(lambda: [load.per_slot for load in loads] == [1.5, 1.0])
    for _ in range(5):  # what is sent counts until the next load is published
        await accepted(served)
    assert (len(backend.submissions()), len(second.submissions())) == (2, 3)


async def test_an_id_that_a_client_has_chosen_is_accepted_once_in_all_cells(
    served: Served, backend: Backend, second: Backend
) -> None:
    names = [f"r{number}" for number in range(16)]
    for name in names:
        await accepted(served, name)
    backend.announce_load(Load(slots_total=1000))  # whichever is the less busy now
    for name in names:
        await taken(served, name)
    counts = [len(at.submissions()) for at in (backend, second)]
    assert sum(counts) == 16
    assert min(counts) > 0


async def test_a_cell_that_fails_ends_its_own_streams_only_and_gets_no_more(
    served: Served, backend: Backend, second: Backend
) -> None:
    calls = {name: await accepted(served, name) for name in (f"r{number}" for number in range(8))}
    first, other = names_of(backend)[0], names_of(second)[0]
    second.redis.delete(second.keys.lease)
    assert (await rest_of(calls[other]))[-1].error.retryable
    backend.result([(1, 50, Finish.LENGTH)], admitted={first: 1})
    assert list((await rest_of(calls[first]))[0].tokens.ids) == [50]
    before = len(second.submissions())
    for number in range(8):
        await accepted(served, f"s{number}")
    assert len(second.submissions()) == before


async def test_a_cell_that_does_not_answer_at_the_start_joins_when_it_does(backend: Backend) -> None:
    async with serving(backend, cells=f"redis://127.0.0.1:{free_port('127.0.0.1')}") as served:
        first, absent = served.gateway.models.get("").backends
        await eventually(lambda: first.watch.serving)
        assert absent.readiness == 0
        for number in range(4):
            await accepted(served, f"r{number}")
        assert len(backend.submissions()) == 4


async def test_a_cancellation_finds_the_request_in_any_cell(
    served: Served, backend: Backend, second: Backend
) -> None:
    for number in range(8):
        await accepted(served, f"r{number}")
    for number in range(8):
        message = api.CancelRequest(request_id=f"r{number}")
        assert (await served.inference.Cancel(message, timeout=10)).found
    cancelled = [entry for at in (backend, second) for entry in at.inbox() if isinstance(entry, str)]
    assert sorted(cancelled) == [f"r{number}" for number in range(8)]


async def test_the_load_is_that_of_both_cells(served: Served, backend: Backend, second: Backend) -> None:
    backend.announce_load(Load(slots_total=8, running=8, waiting=4, wait_seconds=3))
    second.announce_load(Load(slots_total=4, running=2, wait_seconds=1))
    load = await served.control.GetLoad(control_pb2.GetLoadRequest(), timeout=10)
    assert (load.slots_total, load.running, load.waiting, load.wait_seconds) == (12, 10, 4, 1.0)


async def test_an_id_stays_with_its_cell_while_that_has_no_group(
    served: Served, backend: Backend, second: Backend
) -> None:
    names = [f"r{number}" for number in range(8)]
    for name in names:
        await accepted(served, name)
    second.close_group()
    await eventually(lambda: served.gateway.models.get("").backends[1].readiness == 1)
    for name in names:
        await taken(served, name)
    before = len(second.submissions())
    for _ in range(4):  # the gateway chooses these
        await accepted(served)
    assert len(second.submissions()) == before


async def test_without_groups_requests_wait_in_all_cells(
    served: Served, backend: Backend, second: Backend
) -> None:
    for at in (backend, second):
        at.close_group()
        at.announce_load(Load())
    backends = served.gateway.models.get("").backends
    await eventually(lambda: [at.readiness for at in backends] == [1, 1])
    for _ in range(4):
        await accepted(served)
    assert [len(at.submissions()) for at in (backend, second)] == [2, 2]


@pytest.mark.parametrize("bad", [b"names", b"epoch"])
async def test_what_cannot_be_read_in_one_cell_harms_no_other(
    served: Served, backend: Backend, second: Backend, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    if bad == b"names":
        second.redis.sadd(MODELS, b"\xff")
    else:
        second.redis.set(second.keys.epoch, b"five")
        await eventually(lambda: "begins anew" in caplog.text)
    await asyncio.sleep(1.5)
    for number in range(8):
        message = request(request_id=f"r{number}")
        call = served.inference.Generate(message, timeout=10)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
    assert backend.submissions()
    backend.result([(1, 50, Finish.LENGTH)], admitted={names_of(backend)[0]: 1})
    await eventually(lambda: len(served.gateway.models.get("").backends[0].router.unfinished()) < 8)
    second.open_epoch()
    await both_serve(served)


async def test_groups_of_one_name_are_told_apart_by_their_cells(
    served: Served, backend: Backend, second: Backend
) -> None:
    for at in (backend, second):
        at.announce_load(Load(groups=[GroupLoad(name="g1", incarnation=GROUP)]))
    load = await served.control.GetLoad(control_pb2.GetLoadRequest(), timeout=10)
    names = [group.name for group in load.groups]
    assert len({*names}) == 2
    assert all(name.endswith("/g1") for name in names)


def names_of(at: Backend) -> list[str]:
    return [submission.request_id.rpartition("@")[0] for submission in at.submissions()]
