"""A whole gateway over its socket: streams, and what ends them."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from albireo.contract.plan import Finish, Submission, branch_seed, public_name
from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from gateway.text.text_codec import TextCodec
from tests.gateway.conftest import Backend, Served, code_of, eventually, request, rest_of, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

# Small buffers, so that a client that does not read soon blocks the server.
NARROW = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))
OK = grpc.StatusCode.OK


async def test_events_come_in_order_and_the_submission_is_complete(served: Served) -> None:
    message = request("Hi", temperature=0, max_tokens=5, seed=9)
    message.priority = 3
    call = served.inference.Generate(message, timeout=30)
    accepted = (await call.read()).accepted
    assert (accepted.request_id, accepted.prompt_tokens, accepted.seed) == ("r", 2, 9)
    [submission] = served.backend.inbox()
    assert isinstance(submission, Submission)
    assert (public_name(submission.request_id), len(submission.prompt), submission.priority) == ("r", 2, 3)
    assert (submission.sampling.max_tokens, submission.sampling.seed) == (5, 9)
    # The deadline as it stood here; on its way gRPC rounds it up, to a tenth of a second at this size.
    assert 25 < (submission.timeout_s or 0) < 31
    served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
    assert list((await call.read()).tokens.ids) == [50]
    served.backend.result([(2, 60, Finish.NONE), (1, 51, Finish.LENGTH)])
    assert list((await call.read()).tokens.ids) == [51]  # the other row is another request's
    assert (await call.read()).finished.reason == api.FINISH_REASON_LENGTH
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is OK
    assert len(served.backend.inbox()) == 1  # nothing to cancel
    assert len(served.at.router) == 0


async def test_a_request_whose_client_disconnects_is_cancelled_and_its_stream_removed(served: Served) -> None:
    call = served.inference.Generate(request(), timeout=30)
    await call.read()
    call.cancel()
    await eventually(lambda: served.backend.inbox()[1:] == ["r"])
    assert len(served.at.router) == 0


async def test_a_stop_string_cancels_what_the_scheduler_still_runs(served: Served) -> None:
    call = served.inference.Generate(request(stop=["!"]), timeout=30)
    await call.read()
    served.backend.result([(1, _id("!"), Finish.NONE)], admitted={"r": 1})
    events = await rest_of(call)
    assert events[-1].finished.stop == "!"
    await eventually(lambda: served.backend.inbox()[1:] == ["r"])


async def test_branches_stream_side_by_side_and_end_one_by_one(served: Served) -> None:
    call = served.inference.Generate(request(n=2, seed=7, stop=["!"], prompt_logprobs=0), timeout=30)
    accepted = (await call.read()).accepted
    assert list(accepted.branch_seeds) == [7, branch_seed(7, 1)]
    [submission] = served.backend.inbox()
    assert isinstance(submission, Submission)
    assert (submission.n, submission.sampling.seed) == (2, 7)
    served.backend.result([(1, 50, Finish.NONE)], admitted={"r#0": 1}, prompt={1: (1, 1)})
    prompt = (await call.read()).prompt_logprobs
    assert (prompt.start, len(prompt.logprobs)) == (1, 1)
    assert (await call.read()).tokens.index == 0
    served.backend.result([(2, _id("!"), Finish.NONE)], admitted={"r#1": 2, "r": 3})  # "r" names no branch
    events = [await call.read() for _ in range(2)]
    assert (events[-1].finished.index, events[-1].finished.stop) == (1, "!")
    await eventually(lambda: served.backend.inbox()[1:] == ["r#1"])
    served.backend.result([(1, 51, Finish.LENGTH), (2, 52, Finish.NONE), (3, 53, Finish.NONE)])
    events = await rest_of(call)
    assert [list(event.tokens.ids) for event in events] == [[51], []]
    assert events[-1].finished.reason == api.FINISH_REASON_LENGTH
    assert served.backend.inbox()[1:] == ["r#1"]  # and nothing more to cancel


async def test_a_client_that_leaves_cancels_all_branches_at_once(served: Served) -> None:
    call = served.inference.Generate(request(n=3), timeout=30)
    await call.read()
    call.cancel()
    await eventually(lambda: served.backend.inbox()[1:] == ["r"])
    assert len(served.at.router) == 0


async def test_a_request_that_has_ended_is_not_found_by_a_cancellation(served: Served) -> None:
    async def found() -> bool:
        answer = await served.inference.Cancel(api.CancelRequest(request_id="r"), timeout=5)
        return bool(answer.found)

    assert not await found()
    call = served.inference.Generate(request(), timeout=30)
    await call.read()
    assert await found()
    served.backend.result(ended={"r": Finish.CANCELLED})
    await rest_of(call)
    record = served.backend.keys.request("r")
    await eventually(lambda: served.backend.redis.hexists(record, "gateway") is False)
    assert not await found()
    assert served.backend.redis.pttl(record) > 0
    assert served.backend.inbox()[1:] == ["r"]
    served.backend.open_epoch()
    again = served.inference.Generate(request(), timeout=30)
    assert (await again.read()).HasField("accepted")
    assert await found()  # the note was the earlier one's
    [earlier, *_] = served.backend.submissions()
    await served.at.submitter.note_end("r", earlier.request_id)  # and this one comes late
    assert await found()
    served.backend.open_epoch()
    assert not await found()


async def test_an_end_that_the_scheduler_reports_ends_the_stream(served: Served) -> None:
    call = served.inference.Generate(request(), timeout=30)
    await call.read()
    served.backend.result(ended={"r": Finish.CANCELLED, "another": Finish.CANCELLED})
    assert (await call.read()).finished.reason == api.FINISH_REASON_CANCELLED


async def test_a_slow_reader_gets_several_tokens_a_message_and_every_one(backend: Backend) -> None:
    async with serving(backend, channel_options=NARROW) as served:
        call = served.inference.Generate(request(max_tokens=400, logprobs=20), timeout=30)
        await call.read()
        ids = [5 + n % 300 for n in range(400)]
        for n, token in enumerate(ids):
            last = Finish.LENGTH if n == 399 else Finish.NONE
            backend.result([(1, token, last)], admitted={"r": 1} if n == 0 else None, logprobs=20)
            await asyncio.sleep(0)
        await served.reads_all()
        tokens = [event.tokens for event in await rest_of(call) if event.HasField("tokens")]
    assert len(tokens) < 200
    assert [i for message in tokens for i in message.ids] == ids
    assert [m.offset for m in tokens] == [sum(len(t.ids) for t in tokens[:n]) for n in range(len(tokens))]
    assert all(len(message.logprobs) == len(message.ids) for message in tokens)
    detokenized = await _detokenized(backend, ids)
    assert "".join(message.text for message in tokens) == detokenized


async def _detokenized(backend: Backend, ids: list[int]) -> str:
    async with serving(backend) as served:
        answer = await served.inference.Detokenize(api.DetokenizeRequest(ids=ids), timeout=10)
        text: str = answer.text
        return text


@pytest.mark.parametrize("reads", [True, False])
async def test_the_servers_cap_ends_a_request_whether_or_not_its_client_reads(
    backend: Backend, reads: bool
) -> None:
    async with serving(backend, channel_options=NARROW, max_deadline_seconds=0.6) as served:
        call = served.inference.Generate(request(max_tokens=900, logprobs=20), timeout=20)
        await call.read()
        [submission] = backend.inbox()
        assert isinstance(submission, Submission)
        assert submission.timeout_s == 0.6
        if not reads:  # more than fits between server and client, until the cap has come
            for n in range(200):
                rows = [(1, 7, Finish.NONE)]
                backend.result(rows, admitted={"r": 1} if n == 0 else None, logprobs=20)
            await eventually(lambda: not served.at.router.unfinished())
        began = time.monotonic()
        events = await rest_of(call)
        assert time.monotonic() - began < 5
        assert events[-1].finished.reason == api.FINISH_REASON_DEADLINE
        assert await call.code() is OK


async def test_a_clients_deadline_ends_the_call_and_the_request(served: Served) -> None:
    call = served.inference.Generate(request(), timeout=0.4)
    assert await code_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: served.backend.inbox()[1:] == ["r"])
    assert len(served.at.router) == 0


async def test_a_watcher_of_health_sees_every_change(backend: Backend) -> None:
    backend.redis.delete(backend.keys.lease)
    states = health_pb2.HealthCheckResponse
    async with serving(backend) as served:
        watch = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert (await watch.read()).status == states.NOT_SERVING
        backend.announce_scheduler()
        assert (await watch.read()).status == states.SERVING
        backend.close_group()
        other = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        await other.read()
        other.cancel()  # one that leaves takes nothing from the rest
        assert (await watch.read()).status == states.NOT_SERVING
        backend.open_group("another")
        assert (await watch.read()).status == states.SERVING
        watch.cancel()


@pytest.mark.parametrize("event", ["next epoch", "no scheduler", "trimmed log"])
async def test_a_lost_scheduler_epoch_or_result_ends_streams_with_a_retryable_error(
    served: Served, event: str
) -> None:
    call = served.inference.Generate(request(), timeout=30)
    await call.read()
    served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
    await call.read()
    if event == "next epoch":
        served.backend.open_epoch()
    elif event == "no scheduler":
        served.backend.redis.delete(served.backend.keys.lease)
    else:
        served.backend.skip_steps(5)
        served.backend.result([(1, 51, Finish.NONE)])
    events = await rest_of(call)
    assert events[-1].error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert events[-1].error.retryable
    assert not any(event.tokens.ids for event in events)  # nothing from behind the loss


@pytest.mark.parametrize("method", ["Tokenize", "Detokenize"])
async def test_a_large_text_does_not_delay_other_streams(backend: Backend, method: str) -> None:
    backend.announce_model(max_model_len=1 << 17)
    async with serving(backend) as served:
        if method == "Tokenize":
            call = served.inference.Tokenize(api.TokenizeRequest(text="a word " * 25_000), timeout=60)
        else:
            call = served.inference.Detokenize(api.DetokenizeRequest(ids=[70] * (1 << 17)), timeout=60)
        waits: list[float] = []
        while not call.done():
            began = time.monotonic()
            await asyncio.sleep(0.005)
            waits.append(time.monotonic() - began)
        assert await call.code() is OK
    assert max(waits) < max(sum(waits) / 2, 0.1)


def _id(text: str) -> int:
    [token] = TextCodec(TINY).encode(text)
    return token


async def test_a_gateway_that_stops_cancels_what_still_streams(backend: Backend) -> None:
    """Those that wait for tokens as well as those that wait for their clients."""
    names = [f"r{n}" for n in range(16)]
    async with serving(backend, channel_options=NARROW) as served:
        calls = [served.inference.Generate(request(request_id=name), timeout=30) for name in names]
        for call in calls:
            await call.read()
        backend.result(admitted={name: n for n, name in enumerate(names)})
        for _ in range(100):
            backend.result([(n, 7, Finish.NONE) for n in range(8)], logprobs=20)
        await served.reads_all()
    cancelled = [entry for entry in backend.inbox() if isinstance(entry, str)]
    assert sorted(cancelled) == sorted(names)
