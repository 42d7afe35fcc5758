"""No message that leaves the gateway has a MiB, whatever was asked for and however slow the reader is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NoReturn

import grpc
import pytest
import pytest_asyncio
from tokenizers import Tokenizer

from albireo.contract.plan import Finish, SamplingParams
from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal
from gateway.requests.validation import ValidRequest
from gateway.streams.stream import TokenStream
from gateway.text.detokenizer import Vocabulary
from gateway.text.text_codec import TextCodec
from tests.gateway.conftest import Backend, Served, request, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1 << 20
CONTEXT = 32_767
TOP = api.TokenLogprobs(logprob=-1.5, top_ids=range(150_000, 150_020), top_logprobs=[-2.5] * 20)


def stream_of(*stops: str, n: int = 1) -> TokenStream:
    sampling = SamplingParams(max_tokens=CONTEXT, seed=0, logprobs=20)
    valid = ValidRequest("r", (5, 6, 7), sampling, stops, 0, n, "default")
    return TokenStream(valid, Vocabulary(TextCodec(TINY).tokenizer), lambda name: None)


@pytest.mark.parametrize("stops", [(), ("never to be found",)], ids=["no stop", "stop"])
@pytest.mark.parametrize("logprobs", [TOP, None], ids=["logprobs", "ids"])
async def test_a_whole_context_that_waits_comes_in_small_messages(
    stops: tuple[str, ...], logprobs: api.TokenLogprobs | None
) -> None:
    stream, ids = stream_of(*stops), [5 + n % 300 for n in range(CONTEXT)]
    [branch] = stream.branches.values()
    for position, token in enumerate(ids):
        last = Finish.LENGTH if position == CONTEXT - 1 else Finish.NONE
        branch.push(position, token, logprobs, last)
    events = [event async for event in stream.events()]
    assert max(event.ByteSize() for event in events) < MIB // 4
    tokens, last_event = [event.tokens for event in events[:-1]], events[-1]
    assert [i for message in tokens for i in message.ids] == ids
    offsets = [sum(len(m.ids) for m in tokens[:n]) for n in range(len(tokens))]
    assert [message.offset for message in tokens] == offsets
    expected = len(ids) if logprobs is not None else 0
    assert sum(len(message.logprobs) for message in tokens) == expected
    assert all(found == TOP for message in tokens for found in message.logprobs)
    reference = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    assert "".join(message.text for message in tokens) == reference.decode(ids, skip_special_tokens=True)
    assert last_event.finished.reason == api.FINISH_REASON_LENGTH
    assert last_event.finished.usage.completion_tokens == CONTEXT


async def test_tokens_with_very_long_texts_come_in_small_messages() -> None:
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer.add_tokens(["ab" * 1000])
    long = tokenizer.get_vocab()["ab" * 1000]
    valid = ValidRequest("r", (5,), SamplingParams(max_tokens=CONTEXT, seed=0), (), 0, 1, "default")
    stream = TokenStream(valid, Vocabulary(tokenizer), lambda name: None)
    [branch] = stream.branches.values()
    for position in range(2000):
        branch.push(position, long, None, Finish.LENGTH if position == 1999 else Finish.NONE)
    events = [event async for event in stream.events()]
    assert max(event.ByteSize() for event in events) < MIB
    assert "".join(event.tokens.text for event in events) == tokenizer.decode([long] * 2000)


async def test_a_stop_string_in_a_later_message_ends_there() -> None:
    stream = stream_of("~stop~")
    [branch] = stream.branches.values()
    tokenizer = TextCodec(TINY).tokenizer
    ids = tokenizer.encode("x" * 3000 + "~stop~" + "y" * 3000, add_special_tokens=False).ids
    for position, token in enumerate(ids):
        branch.push(position, token, TOP, Finish.NONE)
    events = [event async for event in stream.events()]
    assert len(events) > 3
    assert "".join(event.tokens.text for event in events) == "x" * 3000
    assert events[-1].finished.stop == "~stop~"
    assert branch.stopped_early


async def test_the_prompts_log_probabilities_come_in_parts() -> None:
    stream = stream_of()
    stream.push_prompt(1, [TOP] * CONTEXT)
    stream.finish(Finish.CANCELLED)
    events = [event async for event in stream.events()]
    assert max(event.ByteSize() for event in events) < MIB // 4
    assert sum(len(event.prompt_logprobs.logprobs) for event in events) == CONTEXT


@pytest_asyncio.fixture(loop_scope="session")
async def served(backend: Backend) -> AsyncIterator[Served]:
    backend.announce_model(max_model_len=1 << 20)
    async with serving(backend) as found:
        yield found


async def test_answers_with_ids_or_text_are_bounded(served: Served) -> None:
    """The longest token of the bundled model again and again, and text that takes an id a character."""
    tokenizer = TextCodec(TINY).tokenizer
    longest = max(tokenizer.get_vocab().items(), key=lambda item: len(tokenizer.decode([item[1]])))[1]
    detokenize, tokenize = served.inference.Detokenize, served.inference.Tokenize
    for call, most in (
        (detokenize(api.DetokenizeRequest(ids=[longest] * 131_072), timeout=20), MIB - 1),  # bytes
        (tokenize(api.TokenizeRequest(text="\u00e9\u4e2d" * 300_000), timeout=20), 131_072),  # ids
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"at most {most}" in (raised.value.details() or "")
    answer = await served.inference.Detokenize(api.DetokenizeRequest(ids=[longest] * 50_000), timeout=20)
    assert 0 < answer.ByteSize() < MIB


async def test_a_long_reason_still_reaches_the_client(served: Served) -> None:
    """gRPC drops a call whose headers are beyond 8 KiB or so; a reason is percent-encoded in them."""

    def refuse(*arguments: object) -> NoReturn:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "field: " + "\N{FOX FACE}" * 100_000)

    served.gateway.models.get("").checkpoint.validator.generate = refuse  # type: ignore[method-assign, assignment]
    call = served.inference.Generate(request(), timeout=10)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await call.details() or "").startswith("field: \N{FOX FACE}")
    await asyncio.sleep(0)
