"""The stream of one request: rows from the router in, events for the client out."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import pytest

from albireo.contract.plan import Finish, SamplingParams
from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from gateway.requests.validation import ValidRequest
from gateway.streams.branch import Branch
from gateway.streams.failures import Failure
from gateway.streams.stream import TokenStream
from gateway.text.detokenizer import Vocabulary
from gateway.text.text_codec import TextCodec
from tests.gateway.tokenizers_made import id_of

CODEC = TextCodec(TINY)
VOCABULARY = Vocabulary(CODEC.tokenizer)
GONE = Failure(grpc.StatusCode.UNAVAILABLE, "gone", retryable=True)
END = 1


class Scene(TokenStream):
    """A stream, the names of its branches that stop strings ended, and the first branch's end of it."""

    def __init__(
        self,
        *stops: str,
        min_tokens: int = 0,
        n: int = 1,
        stop_ids: tuple[int, ...] = (),
        include_stop: bool = False,
        name: str = "",
    ) -> None:
        self.stopped: list[str] = []
        self._pushed = Counter[int]()  # rows by branch
        sampling = SamplingParams(max_tokens=1000, seed=0, min_tokens=min_tokens, stop_ids=stop_ids)
        request = ValidRequest("r", (5, 6, 7), sampling, stops, 0, n, "default", include_stop)
        super().__init__(request, VOCABULARY, self.stopped.append, name)

    def __getitem__(self, index: int) -> Branch:
        return list(self.branches.values())[index]

    def push(self, token: int, logprobs: api.TokenLogprobs | None, finish: Finish, *, index: int = 0) -> None:
        """The next row of a branch."""
        self[index].push(self._pushed[index], token, logprobs, finish)
        self._pushed[index] += 1

    def push_all(self, ids: list[int], finish: Finish = Finish.NONE, *, index: int = 0) -> None:
        for token in ids[:-1]:
            self.push(token, None, Finish.NONE, index=index)
        self.push(ids[-1], None, finish, index=index)


async def rest(stream: Scene) -> list[api.GenerateEvent]:
    return [event async for event in stream.events()]


def text_of(events: list[api.GenerateEvent]) -> str:
    return "".join(event.tokens.text for event in events)


async def test_a_reader_that_keeps_up_gets_every_token_at_once() -> None:
    stream, ids = Scene(), CODEC.encode("Tell me a story.")
    events = stream.events()
    for offset, token in enumerate(ids):
        stream.push(token, None, Finish.NONE)
        tokens = (await anext(events)).tokens
        assert (tokens.offset, list(tokens.ids)) == (offset, [token])
    stream.finish(Finish.CANCELLED)
    assert (await anext(events)).finished.reason == api.FINISH_REASON_CANCELLED


async def test_a_slow_reader_gets_several_tokens_a_message_with_offsets_that_go_on() -> None:
    stream, ids = Scene(), CODEC.encode("Tell me a story about a fox.")
    assert len(ids) > 9
    events = stream.events()
    stream.push_all(ids[:4])
    first = (await anext(events)).tokens
    stream.push_all(ids[4:], Finish.LENGTH)
    second = (await anext(events)).tokens
    last = (await anext(events)).finished
    assert (first.offset, list(first.ids)) == (0, ids[:4])
    assert (second.offset, list(second.ids)) == (4, ids[4:])
    assert first.text + second.text == "Tell me a story about a fox."
    assert last.reason == api.FINISH_REASON_LENGTH
    assert last.usage == api.Usage(prompt_tokens=3, completion_tokens=len(ids))


async def test_a_reader_waits_until_there_is_something() -> None:
    stream = Scene()
    reading = asyncio.ensure_future(anext(stream.events()))
    await asyncio.sleep(0.01)
    assert not reading.done()
    stream.push_all(CODEC.encode("x"))
    assert (await reading).tokens.text == "x"


async def test_an_end_token_is_sent_and_has_no_text() -> None:
    stream, ids = Scene(), CODEC.encode("yes")
    stream.push_all([*ids, END], Finish.STOP)
    events = await rest(stream)
    assert list(events[0].tokens.ids) == [*ids, END]
    assert text_of(events) == "yes"
    assert events[-1].finished.stop_token_id == END
    assert events[-1].finished.WhichOneof("matched") == "stop_token_id"


@pytest.mark.parametrize("stops", [(), ("never",)])
@pytest.mark.parametrize("include_stop", [False, True])
async def test_the_token_that_ends_a_stream_has_no_text(stops: tuple[str, ...], include_stop: bool) -> None:
    """Not the model's end, though it be an ordinary token; not a stop token's, unless it is asked for."""
    *ids, last = CODEC.encode("yes!")
    end = Scene(*stops, include_stop=include_stop)
    end.push_all([*ids, last], Finish.STOP)
    stop = Scene(*stops, include_stop=include_stop, stop_ids=(last,))
    stop.push_all([*ids, last], Finish.STOP)
    for stream, text in ((end, "yes"), (stop, "yes!" if include_stop else "yes")):
        events = await rest(stream)
        assert list(events[0].tokens.ids) == [*ids, last]
        assert text_of(events) == text
        assert events[-1].finished.stop_token_id == last


@pytest.mark.parametrize(("include_stop", "text"), [(False, "1234"), (True, "1234st")])
async def test_the_text_ends_before_or_after_the_stop_string(include_stop: bool, text: str) -> None:
    stream = Scene("st", include_stop=include_stop)
    stream.push_all(CODEC.encode("1234st5678"))
    assert text_of(await rest(stream)) == text


async def test_the_text_of_a_special_token_is_a_stop_string() -> None:
    """It is compared before special tokens are dropped, and dropped all the same."""
    user = id_of(CODEC.tokenizer, "<|user|>")
    stream, ids = Scene("!<|user|>"), CODEC.encode("no! yes!")
    stream.push_all([user, *ids, user, *ids])
    events = await rest(stream)
    assert [token for event in events for token in event.tokens.ids] == [user, *ids, user]
    assert (text_of(events), events[-1].finished.stop) == ("no! yes", "!<|user|>")


async def test_a_stop_string_may_begin_within_min_tokens() -> None:
    """It ends with the first token after them, as in vLLM's detokenizer."""
    ids = CODEC.encode("1234")
    assert len(ids) == 4
    stream = Scene("234", "12", min_tokens=3)
    stream.push_all([*ids, *ids])
    events = await rest(stream)
    assert (text_of(events), events[-1].finished.stop) == ("1", "234")
    assert [token for event in events for token in event.tokens.ids] == ids


async def test_logprobs_come_one_an_id() -> None:
    stream, ids = Scene("c"), CODEC.encode("abcd")
    for token in ids:
        stream.push(token, api.TokenLogprobs(logprob=-token), Finish.NONE)
    [event, _] = await rest(stream)
    assert [entry.logprob for entry in event.tokens.logprobs] == [-token for token in event.tokens.ids]


@pytest.mark.parametrize("finish", [Finish.NONE, Finish.LENGTH])
async def test_a_stop_string_cuts_text_and_ids_behind_it(finish: Finish) -> None:
    """Whether or not the worker ended the request for another reason meanwhile."""
    stream, ids = Scene("st"), CODEC.encode("1234st5678")
    stream.push_all(ids, finish)
    events = await rest(stream)
    sent = [token for event in events for token in event.tokens.ids]
    assert text_of(events) == "1234"
    assert sent == ids[: len(sent)]
    assert "st" in CODEC.tokenizer.decode(sent)
    assert "st" not in CODEC.tokenizer.decode(sent[:-1])
    assert events[-1].finished.reason == api.FINISH_REASON_STOP
    assert events[-1].finished.stop == "st"
    assert events[-1].finished.usage.completion_tokens == len(sent)
    assert stream.stopped == (["r"] if finish is Finish.NONE else [])  # only then must the scheduler know


async def test_the_beginning_of_a_stop_string_that_is_not_completed_is_sent() -> None:
    stream = Scene("foxes")
    stream.push_all(CODEC.encode("a fox"), Finish.LENGTH)
    events = await rest(stream)
    assert text_of(events) == "a fox"
    assert events[-1].finished.reason == api.FINISH_REASON_LENGTH


async def test_a_stop_string_in_an_unfinished_end_is_found() -> None:
    stream = Scene("\ufffd")
    stream.push_all(CODEC.encode("a🦩")[:-1], Finish.LENGTH)
    events = await rest(stream)
    assert text_of(events) == "a"
    assert events[-1].finished.stop == "\ufffd"


async def test_a_stop_string_within_min_tokens_is_just_text() -> None:
    ids = CODEC.encode("1212")
    assert len(ids) == 4
    stream = Scene("2", min_tokens=2)
    stream.push_all(ids)
    events = await rest(stream)
    assert text_of(events) == "121"
    assert events[-1].finished.usage.completion_tokens == 4


async def test_min_tokens_count_over_all_messages() -> None:
    stream, ids = Scene("2", min_tokens=3), CODEC.encode("121312")
    events = stream.events()
    stream.push_all(ids[:2])
    assert (await anext(events)).tokens.text == "12"
    stream.push_all(ids[2:])
    assert (await anext(events)).tokens.text == "131"
    assert (await anext(events)).finished.stop == "2"


async def test_a_failure_comes_after_the_tokens_before_it() -> None:
    stream = Scene()
    stream.push_all(CODEC.encode("half"))
    stream.fail(GONE)
    events = await rest(stream)
    assert text_of(events) == "half"
    assert events[-1].error == api.Error(code=14, message="gone", retryable=True)


async def test_only_the_first_end_of_a_stream_counts() -> None:
    stream = Scene()
    stream.push_all(CODEC.encode("whole"), Finish.LENGTH)
    stream.fail(GONE)
    stream.finish(Finish.CANCELLED)
    stream.push_all(CODEC.encode("more"))
    events = await rest(stream)
    assert stream.ended
    assert text_of(events) == "whole"
    assert events[-1].finished.reason == api.FINISH_REASON_LENGTH


async def test_nan_logits_end_only_that_request_with_an_error() -> None:
    stream = Scene()
    stream.push_all(CODEC.encode("half"))
    stream.push(0, None, Finish.ERROR)
    events = await rest(stream)
    assert text_of(events) == "half"
    assert events[-1].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert not events[-1].error.retryable


async def test_cached_prompt_tokens_are_those_of_the_first_admission() -> None:
    stream = Scene()
    stream[0].admit(1, 96)  # read first, of a group that went on from the first token
    stream[0].admit(0, 2)
    stream[0].admit(0, 64)  # after a preemption
    stream.push_all(CODEC.encode("x"), Finish.LENGTH)
    assert (await rest(stream))[-1].finished.usage.cached_prompt_tokens == 2


async def test_cached_prompt_tokens_are_not_those_of_an_admission_whose_kv_did_not_come() -> None:
    stream = Scene()
    failed = stream[0].admit(0, 96)
    stream[0].unfetched(failed)
    stream[0].unfetched(failed)  # read again: no other admission counts less for it
    stream[0].admit(0, 32)
    stream[0].admit(0, 64)  # after a preemption
    stream.push_all(CODEC.encode("x"), Finish.LENGTH)
    assert (await rest(stream))[-1].finished.usage.cached_prompt_tokens == 32


async def test_nothing_was_cached_for_a_request_that_ends_after_its_kv_did_not_come() -> None:
    stream = Scene()
    stream[0].unfetched(stream[0].admit(0, 96))
    assert stream[0].admitted
    stream.finish(Finish.DEADLINE)
    assert (await rest(stream))[-1].finished.usage.cached_prompt_tokens == 0
