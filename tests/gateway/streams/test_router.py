"""Which entries of the logs belong to a stream whose epoch is not known yet."""

from __future__ import annotations

import pytest

from albireo.contract.plan import Finish, SamplingParams
from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from gateway.requests.validation import ValidRequest
from gateway.streams.stream import TokenStream
from gateway.text.detokenizer import Vocabulary
from gateway.text.text_codec import TextCodec
from tests.gateway.conftest import Served, eventually, request, rest_of

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

VOCABULARY = Vocabulary(TextCodec(TINY).tokenizer)


def stream_of(request_id: str) -> TokenStream:
    request = ValidRequest(request_id, (5, 6), SamplingParams(max_tokens=9, seed=0), (), 0, 1, "default")
    return TokenStream(request, VOCABULARY, on_stop=lambda _: None)


async def test_results_of_an_earlier_epoch_for_the_same_id_are_dropped(served: Served) -> None:
    """The gateway reads with a delay: entries of the last epoch come after the new submission."""
    router = served.at.router
    stream = stream_of("r")
    router.register(stream)
    served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
    served.backend.result([(1, 51, Finish.NONE)], ended={"r": Finish.CANCELLED})
    await served.reads_all()
    router.bind(stream, 2)
    served.backend.result([(1, 52, Finish.NONE)], admitted={"r": 1}, ended={"r": Finish.DEADLINE})
    served.backend.open_epoch()
    served.backend.result([(1, 60, Finish.NONE)], admitted={"r": 1})
    served.backend.result([(1, 61, Finish.LENGTH)])
    events = [event async for event in stream.events()]
    assert [token for event in events for token in event.tokens.ids] == [60, 61]
    assert events[-1].finished.reason == api.FINISH_REASON_LENGTH
    router.remove(stream)


async def test_an_epoch_that_ended_before_it_was_known_brings_its_tokens_and_an_error(
    served: Served,
) -> None:
    router = served.at.router
    stream = stream_of("r")
    router.register(stream)
    served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
    served.backend.open_epoch()
    served.backend.result([(1, 60, Finish.NONE)], admitted={"another": 1})
    await served.reads_all()
    router.bind(stream, 1)
    served.backend.result([(1, 61, Finish.NONE)])
    await served.reads_all()
    events = [event async for event in stream.events()]
    assert [token for event in events for token in event.tokens.ids] == [50]
    assert events[-1].error.retryable
    router.remove(stream)


async def test_results_that_arrived_before_the_epoch_was_known_are_kept(served: Served) -> None:
    router = served.at.router
    stream = stream_of("r")
    router.register(stream)
    served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
    served.backend.result([(1, 51, Finish.NONE)])
    await served.reads_all()
    router.bind(stream, 1)
    served.backend.result([(1, 52, Finish.LENGTH)])
    events = [event async for event in stream.events()]
    assert [token for event in events for token in event.tokens.ids] == [50, 51, 52]
    router.remove(stream)


async def test_a_log_that_was_deleted_and_begun_again_is_read_from_its_end(served: Served) -> None:
    """Redis lost everything, the count of epochs with it."""
    router = served.at.router
    for _ in range(5):
        served.backend.open_epoch()
    await eventually(lambda: router.epoch == 6)
    stream = stream_of("old")
    router.register(stream)
    router.bind(stream, 6)
    served.backend.redis.flushall()
    served.backend.begin()
    await eventually(lambda: router.epoch == 1)
    assert [event async for event in stream.events()][-1].error.retryable
    router.remove(stream)
    call = served.inference.Generate(request(), timeout=30)
    assert (await call.read()).HasField("accepted")
    served.backend.result([(1, 50, Finish.LENGTH)], admitted={"r": 1})
    assert (await rest_of(call))[-1].finished.reason == api.FINISH_REASON_LENGTH
