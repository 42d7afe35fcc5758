"""The pace of tokens that are computed with streamed KV, as the usage tells it."""

from __future__ import annotations

import pytest

from albireo.contract.plan import Finish
from albireo.contract.result_rows import columns
from albireo.v1 import inference_pb2 as api
from albireo.v1 import log_pb2 as log
from gateway.streams import streamed_pace
from gateway.streams.streamed_pace import StreamedPace
from tests.gateway.streams.test_branch_positions import EPOCH, admission, bound
from tests.gateway.streams.test_stream import CODEC, Scene, rest


def test_the_pace_is_the_mean_time_from_one_token_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.5, 12.0])
    monkeypatch.setattr(streamed_pace.time, "monotonic", lambda: next(times))
    pace = StreamedPace()
    assert (pace.tokens, pace.token_seconds) == (0, 0.0)
    pace.add()
    assert (pace.tokens, pace.token_seconds) == (1, 0.0)
    pace.add()
    pace.add()
    assert (pace.tokens, pace.token_seconds) == (3, 1.0)


def rows(*ids: int, finish: Finish = Finish.NONE) -> log.StepResult:
    """Of a streamed slot, in one result: more than a step has, as when results are read again."""
    count = len(ids)
    return log.StepResult(
        **columns([0] * count, [7] * count, ids, bytes([*[0] * (count - 1), finish])), streamed=[7]
    )


async def usage_of(stream: Scene) -> api.Usage:
    return (await rest(stream))[-1].finished.usage


async def test_streamed_tokens_are_among_those_of_the_answer() -> None:
    """Not rows that have been received before, nor what comes behind a stop string."""
    stream = Scene("b")
    table = bound(stream)
    table.result("a", EPOCH, admission())
    stream[0].push(0, CODEC.encode("x")[0], None, Finish.NONE)
    table.result("a", EPOCH, rows(*CODEC.encode("xabcd")))
    usage = await usage_of(stream)
    assert (usage.completion_tokens, usage.streamed_tokens) == (3, 2)


async def test_a_row_that_could_not_be_sampled_is_no_streamed_token() -> None:
    stream = Scene()
    table = bound(stream)
    table.result("a", EPOCH, admission())
    table.result("a", EPOCH, rows(50, 0, finish=Finish.ERROR))
    assert stream[0].streamed.tokens == 1


async def test_tokens_that_a_streamed_slot_had_cached_count_though_it_lacks_others_later() -> None:
    stream = Scene()
    table = bound(stream)
    table.result("a", EPOCH, admission(num_cached=96))
    table.result("a", EPOCH, rows(50))
    table.result("a", EPOCH, log.StepResult(unfetched=[7]))
    table.result("b", EPOCH, admission(num_cached=48, num_outputs=1))
    stream.finish(Finish.CANCELLED)
    assert (await usage_of(stream)).cached_prompt_tokens == 96
