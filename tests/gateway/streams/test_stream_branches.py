"""Several branches in one stream, and the log-probabilities of its prompt."""

from __future__ import annotations

import grpc
import pytest

from albireo.contract.plan import Finish
from albireo.v1 import inference_pb2 as api
from gateway.streams.failures import Failure
from gateway.streams.stream import PROMPT_PART
from tests.gateway.streams.test_stream import CODEC, GONE, Scene, rest


def entries(*values: int) -> list[api.TokenLogprobs]:
    return [api.TokenLogprobs(logprob=-value) for value in values]


def prompt_parts(events: list[api.GenerateEvent]) -> list[tuple[int, int]]:
    """Position and log-probability of every prompt token that was sent."""
    return [
        (event.prompt_logprobs.start + offset, -int(entry.logprob))
        for event in events
        for offset, entry in enumerate(event.prompt_logprobs.logprobs)
    ]


async def test_each_branch_has_its_own_text_offsets_end_and_usage() -> None:
    stream = Scene(n=3)
    stream[1].admit(0, 32)
    texts = ["a fox", "two bears", "three"]
    for index, text in enumerate(texts):
        stream.push_all(CODEC.encode(text), Finish.LENGTH, index=index)
    events = await rest(stream)
    tokens = {event.tokens.index: event.tokens for event in events if event.HasField("tokens")}
    ends = {event.finished.index: event.finished for event in events if event.HasField("finished")}
    assert [tokens[index].text for index in range(3)] == texts
    assert [tokens[index].offset for index in range(3)] == [0, 0, 0]
    assert [ends[index].usage.completion_tokens for index in range(3)] == [
        len(CODEC.encode(text)) for text in texts
    ]
    assert [ends[index].usage.cached_prompt_tokens for index in range(3)] == [0, 32, 0]


async def test_the_stream_goes_on_until_the_last_branch_has_ended() -> None:
    stream = Scene(n=2)
    events = stream.events()
    stream.push_all(CODEC.encode("x"), Finish.LENGTH, index=1)
    assert (await anext(events)).tokens.index == 1
    assert (await anext(events)).finished.index == 1
    assert not stream.ended
    stream.push_all(CODEC.encode("yz"), index=0)
    assert (await anext(events)).tokens.index == 0
    stream.finish(Finish.CANCELLED)
    last = (await anext(events)).finished
    assert (last.index, last.reason) == (0, api.FINISH_REASON_CANCELLED)
    assert [event async for event in events] == []


async def test_a_stop_string_ends_only_its_branch_and_its_name_is_reported() -> None:
    stream = Scene("s", n=2)
    events = stream.events()
    stream.push_all(CODEC.encode("1s"), index=1)
    assert (await anext(events)).tokens.text == "1"
    assert (await anext(events)).finished.stop == "s"
    assert stream.stopped == ["r#1"]
    stream.push_all(CODEC.encode("9"), index=1)  # rows that were in flight
    stream.push_all(CODEC.encode("2"), Finish.LENGTH, index=0)
    assert [event.WhichOneof("event") async for event in events] == ["tokens", "finished"]


async def test_a_row_that_could_not_be_sampled_ends_only_its_branch() -> None:
    stream = Scene(n=2)
    stream.push(0, None, Finish.ERROR)
    stream.push_all(CODEC.encode("x"), Finish.LENGTH, index=1)
    events = await rest(stream)
    assert [event.WhichOneof("event") for event in events] == ["error", "tokens", "finished"]
    assert events[0].error.index == 0
    assert events[0].error.HasField("index")


async def test_a_failure_of_the_whole_stream_is_sent_once_after_all_earlier_tokens() -> None:
    stream = Scene(n=3)
    stream.push_all(CODEC.encode("x"), Finish.LENGTH, index=2)
    stream.push_all(CODEC.encode("y"), index=0)
    stream.fail(GONE)
    stream.push_all(CODEC.encode("z"), index=1)
    stream.finish(Finish.CANCELLED)
    stream.fail(Failure(grpc.StatusCode.INTERNAL, "later", retryable=False))
    events = await rest(stream)
    assert stream.ended
    assert [event.WhichOneof("event") for event in events] == ["tokens", "tokens", "finished", "error"]
    assert events[-1].error.message == "gone"
    assert not events[-1].error.HasField("index")


async def test_prompt_positions_are_sent_once_each_and_before_the_tokens() -> None:
    stream = Scene()
    stream.push_prompt(1, entries(1, 2))
    stream.push_prompt(1, entries(1, 2))  # the prefill was broken off and began again
    stream.push_prompt(3, entries(3))
    stream.push_prompt(2, entries(2, 3, 4, 5))
    stream.push_all(CODEC.encode("x"), Finish.LENGTH)
    stream.push_prompt(1, entries(1, 2, 3))
    events = await rest(stream)
    assert [event.WhichOneof("event") for event in events] == ["prompt_logprobs", "tokens", "finished"]
    assert prompt_parts(events) == [(position, position) for position in range(1, 6)]


async def test_a_part_of_the_prompt_that_arrives_during_a_message_precedes_the_tokens() -> None:
    stream = Scene()
    stream.push_prompt(1, entries(1))
    events = stream.events()
    first = await anext(events)
    stream.push_prompt(2, entries(2))
    stream.push_all(CODEC.encode("x"), Finish.LENGTH)
    rest_of_it = [event async for event in events]
    assert [e.WhichOneof("event") for e in rest_of_it] == ["prompt_logprobs", "tokens", "finished"]
    assert prompt_parts([first, *rest_of_it]) == [(1, 1), (2, 2)]


async def test_a_long_prompt_comes_in_several_messages() -> None:
    stream = Scene()
    stream.push_prompt(1, entries(*range(1, 2 * PROMPT_PART + 2)))
    stream.finish(Finish.CANCELLED)
    events = await rest(stream)
    counts = [len(event.prompt_logprobs.logprobs) for event in events[:-1]]
    assert counts == [PROMPT_PART, PROMPT_PART, 1]
    assert prompt_parts(events) == [(n, n) for n in range(1, 2 * PROMPT_PART + 2)]


@pytest.mark.parametrize("start", [3, 100])
async def test_a_gap_in_the_prompt_is_an_error_and_not_a_shift(start: int) -> None:
    stream = Scene()
    stream.push_prompt(1, entries(1))
    stream.push_prompt(start, entries(start))
    events = await rest(stream)
    assert prompt_parts(events) == [(1, 1)]
    assert events[-1].error.code == grpc.StatusCode.INTERNAL.value[0]
