"""A whole gateway that needs API keys: no way in without one, and no way from one tenant to another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from albireo.contract.keys import API_KEYS
from albireo.contract.plan import Finish
from albireo.store.api_keys import ApiKeyStore
from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from tests.gateway.conftest import Backend, Served, code_of, eventually, request, rest_of, serving
from tests.gateway.with_keys import Client, make_key, refusal_to_start

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

CODE = grpc.StatusCode


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(backend: Backend) -> AsyncIterator[Served]:
    """A gateway with a key; its host is a loopback address, which opens nothing once there is a key."""
    make_key(backend, "first")
    async with serving(backend) as found:
        yield found


async def services_of(served: Served, metadata: Any) -> dict[str, list[tuple[str, bool, bool, bytes]]]:
    """All methods of all services, as a client finds them by the server's reflection: path, whether requests
    and answers are streams, an empty request."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)  # type: ignore[arg-type]

    async def ask(**fields: Any) -> Any:
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(**fields)]), metadata=metadata, timeout=5
        )
        return await anext(aiter(call))

    pool, found = DescriptorPool(), dict[str, list[tuple[str, bool, bool, bytes]]]()
    names = [service.name for service in (await ask(list_services="")).list_services_response.service]
    for name in names:
        answer = await ask(file_containing_symbol=name)
        for data in reversed(answer.file_descriptor_response.file_descriptor_proto):
            pool.Add(FileDescriptorProto.FromString(data))
        service = pool.FindServiceByName(name)
        found[name] = [
            (
                f"/{name}/{method.name}",
                method.client_streaming,
                method.server_streaming,
                GetMessageClass(method.input_type)().SerializeToString(),
            )
            for method in service.methods
        ]
    return found


async def first_code(
    served: Served, method: tuple[str, bool, bool, bytes], metadata: Any, seconds: float = 5
) -> CODE:
    """How a call begins: OK where it has an answer, else its status."""
    path, requests, answers, body = method
    kind = ("stream" if requests else "unary", "stream" if answers else "unary")
    multi: Any = getattr(served.channel, "_".join(kind))(path)
    call = multi(iter([body]) if requests else body, metadata=metadata, timeout=seconds)
    try:
        if answers and await call.read() is not grpc.aio.EOF:
            call.cancel()
            return CODE.OK
        return await call.code()
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_no_method_of_any_service_answers_without_a_key_except_health(guarded: Served) -> None:
    """A scan of all that the server says it has, as a tool in a browser would do it."""
    key = make_key(guarded.backend, "scanner")
    client = Client(guarded, key)
    async with asyncio.timeout(10):
        while await client.tokenize() is not CODE.OK:
            await asyncio.sleep(0.05)
    services = await services_of(guarded, key.headers)
    assert {"albireo.v1.Inference", "albireo.v1.Control", reflection.SERVICE_NAME} < set(services)
    codes: dict[str, CODE] = {}
    for name, methods in services.items():
        assert methods
        for method in methods:
            codes[method[0]] = await first_code(guarded, method, ())
            if name != health.SERVICE_NAME:  # the key is what it lacked
                assert await first_code(guarded, method, key.headers, 0.5) is not CODE.UNAUTHENTICATED
    free = {path for path, code in codes.items() if code is not CODE.UNAUTHENTICATED}
    assert free == {f"/{health.SERVICE_NAME}/{method}" for method in ("Check", "Watch", "List")} & set(codes)
    assert len(codes) - len(free) >= 10


async def test_what_has_no_key_cannot_even_list_the_services(guarded: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await services_of(guarded, ())
    assert refused.value.code() is CODE.UNAUTHENTICATED


async def test_a_call_without_a_key_is_refused_before_its_request_is_read(guarded: Served) -> None:
    call: Any = guarded.channel.stream_stream("/albireo.v1.Inference/Generate")(timeout=5)
    assert await call.code() is CODE.UNAUTHENTICATED  # nothing was sent but headers


async def test_a_key_counts_and_stops_counting_within_two_seconds(guarded: Served) -> None:
    key = make_key(guarded.backend, "acme")
    client, made = Client(guarded, key), time.monotonic()
    while await client.tokenize() is not CODE.OK:
        assert time.monotonic() < made + 10
        await asyncio.sleep(0.02)
    accepted = time.monotonic() - made
    stream = client.generate(request("Hi", "r"))
    assert (await stream.read()).HasField("accepted")
    watching = guarded.control.WatchSteps(control.WatchStepsRequest(), metadata=key.headers)
    ApiKeyStore(guarded.backend.redis).remove(key.key_id)
    revoked = time.monotonic()
    assert await stream.code() is CODE.UNAUTHENTICATED
    assert await code_of(watching) is CODE.UNAUTHENTICATED
    ended = time.monotonic() - revoked
    assert await client.tokenize() is CODE.UNAUTHENTICATED
    assert max(accepted, ended) < 4  # two seconds, and as much for a machine whose cores are busy
    await eventually(lambda: guarded.backend.inbox()[1:] == ["r"])  # its request is cancelled


async def test_tenant_and_priority_of_a_request_are_those_of_its_key(backend: Backend) -> None:
    key = make_key(backend, "acme", least_priority=5, greatest_priority=9)
    async with serving(backend) as served:
        client = Client(served, key)
        await client.generate(request("Hi", "a")).read()
        asked = request("Hi", "b")
        asked.tenant, asked.priority = "acme", 9
        await client.generate(asked).read()
        found = [(one.tenant, one.priority) for one in backend.submissions()]
        assert found == [("acme", 5), ("acme", 9)]
        for field, value in (("tenant", "other"), ("priority", 4), ("priority", 10)):
            wrong = request("Hi", "c")
            setattr(wrong, field, value)
            call = client.generate(wrong)
            assert await code_of(call) is CODE.PERMISSION_DENIED
            assert (await call.details()).startswith(f"{field}: ")
        assert len(backend.submissions()) == 2


async def test_request_ids_of_two_tenants_are_apart(backend: Backend) -> None:
    """An id neither blocks nor shows, cancels or joins another tenant's request of the same id."""
    one, other = make_key(backend, "one"), make_key(backend, "other")
    async with serving(backend) as served:
        owner, stranger = Client(served, one), Client(served, other)
        mine = owner.generate(request("Hi", "r"))
        assert (await mine.read()).HasField("accepted")
        assert not await stranger.cancel("r")
        theirs = stranger.generate(request("Another text", "r"))
        assert (await theirs.read()).HasField("accepted")
        first, second = backend.submissions()
        assert (first.tenant, second.tenant) == ("one", "other")
        assert first.request_id != second.request_id
        backend.result([(2, 60, Finish.LENGTH)], admitted={"r": 2})  # the later one's
        assert [list(event.tokens.ids) for event in await rest_of(theirs)] == [[60], []]
        assert await code_of(owner.generate(request("Hi", "r"))) is CODE.ALREADY_EXISTS
        assert await owner.cancel("r")
        await eventually(lambda: backend.inbox()[2:] == ["r"])
        mine.cancel()


async def test_a_scoped_id_cannot_be_spelled_by_a_client(backend: Backend) -> None:
    make_key(backend, "one")
    key = make_key(backend, "other")
    async with serving(backend) as served:
        call = served.inference.Cancel(api.CancelRequest(request_id="one:r"), metadata=key.headers)
        assert await code_of(call) is CODE.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        ({"host": "127.0.0.1"}, True),
        ({"host": "localhost"}, True),
        ({"host": "127.0.0.1", "open": False}, False),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "open": True}, True),
        ({"host": "0.0.0.0", "published_host": "127.0.0.1"}, True),
        ({"host": "127.0.0.1", "published_host": "192.0.2.1"}, False),
    ],
)
async def test_without_keys_it_serves_on_loopback_or_where_it_is_said(
    backend: Backend, options: dict[str, Any], starts: bool
) -> None:
    if starts:
        async with serving(backend, **options) as served:
            answer = await served.inference.Tokenize(api.TokenizeRequest(text="Hi"), timeout=5)
            assert len(answer.ids) == 2
    else:
        assert (await refusal_to_start(backend, **options)).startswith("no API key: ")


async def test_the_first_key_closes_a_gateway_that_was_open(backend: Backend) -> None:
    async with serving(backend) as served:
        stream = served.inference.Generate(request("Hi", "r"), timeout=30)
        assert (await stream.read()).HasField("accepted")
        key = make_key(backend, "acme")
        assert await stream.code() is CODE.UNAUTHENTICATED
        assert (
            await code_of(served.inference.Tokenize(api.TokenizeRequest(text="Hi"))) is CODE.UNAUTHENTICATED
        )
        assert await Client(served, key).tokenize() is CODE.OK


async def test_health_needs_no_key_and_has_a_port_of_its_own_where_one_is_set(backend: Backend) -> None:
    make_key(backend, "acme")
    async with serving(backend, health_port=0) as served:
        target = f"127.0.0.1:{served.gateway.health_port}"
        probes: Any
        async with grpc.aio.insecure_channel(target) as probes:
            for channel in (served.channel, probes):
                stub = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            for path in (
                "/albireo.v1.Inference/Tokenize",
                f"/{reflection.SERVICE_NAME}/ServerReflectionInfo",
            ):
                assert await code_of(probes.unary_unary(path)(b"", timeout=5)) is CODE.UNIMPLEMENTED


async def test_calls_that_send_no_request_do_not_keep_a_probe_from_its_answer(backend: Backend) -> None:
    """They need no key either, and a probe that fails may end the gateway."""
    async with serving(backend, health_port=0, max_arriving=20) as served:
        target = f"127.0.0.1:{served.gateway.health_port}"
        own_connection = [("grpc.use_local_subchannel_pool", 1)]
        stranger: Any
        prober: Any
        async with (
            grpc.aio.insecure_channel(target) as stranger,
            grpc.aio.insecure_channel(target, options=own_connection) as prober,
        ):
            held = [stranger.stream_stream(f"/{health.SERVICE_NAME}/Check")(timeout=30) for _ in range(300)]
            await eventually(lambda: sum(call.done() for call in held) >= 280)
            answer = await health_pb2_grpc.HealthStub(prober).Check(
                health_pb2.HealthCheckRequest(), timeout=5
            )
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            for call in held:
                call.cancel()


async def test_keys_that_redis_lost_open_nothing(guarded: Served) -> None:
    guarded.backend.redis.delete(API_KEYS)
    await asyncio.sleep(1.5)
    call = guarded.inference.Tokenize(api.TokenizeRequest(text="Hi"), timeout=5)
    assert await code_of(call) is CODE.UNAUTHENTICATED
