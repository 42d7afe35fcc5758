"""Rows and ends of one branch that come in another order than that of the answer, from several groups."""

from __future__ import annotations

from albireo.contract.codec import finish_name
from albireo.contract.plan import Finish
from albireo.contract.result_rows import columns
from albireo.v1 import inference_pb2 as api
from albireo.v1 import log_pb2 as log
from gateway.streams.failures import GROUPS_DIED, REFUSED
from gateway.streams.route_table import RouteTable
from tests.gateway.streams.test_stream import Scene, rest

EPOCH = 1


async def ids_of(stream: Scene) -> list[int]:
    return [token for event in await rest(stream) for token in event.tokens.ids]


async def test_a_row_that_has_been_received_before_is_dropped() -> None:
    stream = Scene()
    for position, token in ((0, 50), (1, 51), (0, 70), (1, 71), (2, 52)):
        stream[0].push(position, token, None, Finish.NONE)
    stream.finish(Finish.CANCELLED)
    assert await ids_of(stream) == [50, 51, 52]


async def test_early_rows_wait_for_those_before_them_with_their_end_and_log_probabilities() -> None:
    stream = Scene()
    stream[0].push(2, 52, api.TokenLogprobs(logprob=-2), Finish.LENGTH)
    stream[0].push(1, 51, api.TokenLogprobs(logprob=-1), Finish.NONE)
    assert not stream[0].has_pending
    assert not stream.ended
    stream[0].push(0, 50, api.TokenLogprobs(logprob=0), Finish.NONE)
    assert stream.ended
    [tokens, last] = await rest(stream)
    assert list(tokens.tokens.ids) == [50, 51, 52]
    assert [found.logprob for found in tokens.tokens.logprobs] == [0, -1, -2]
    assert last.finished.reason == api.FINISH_REASON_LENGTH


async def test_a_row_that_could_not_be_sampled_comes_after_those_before_it() -> None:
    stream = Scene()
    stream[0].push(1, 0, None, Finish.ERROR)
    stream[0].push(0, 50, None, Finish.NONE)
    events = await rest(stream)
    assert list(events[0].tokens.ids) == [50]
    assert events[-1].HasField("error")


async def test_an_end_waits_for_the_tokens_before_it() -> None:
    stream = Scene()
    stream[0].push(0, 50, None, Finish.NONE)
    stream[0].finish(Finish.CANCELLED, after=2)
    assert not stream.ended
    stream[0].push(1, 51, None, Finish.NONE)
    assert stream.ended
    assert await ids_of(stream) == [50, 51]


async def test_a_deadline_of_the_gateway_itself_waits_for_nothing() -> None:
    stream = Scene()
    stream[0].finish(Finish.CANCELLED, after=2)
    stream.finish(Finish.DEADLINE)
    assert (await rest(stream))[-1].finished.reason == api.FINISH_REASON_DEADLINE


def bound(stream: Scene) -> RouteTable:
    table = RouteTable()
    stream.epoch = EPOCH
    table.add(stream)
    return table


def admission(num_outputs: int = 0, name: str = "r", num_cached: int = 0) -> log.StepResult:
    admitted = log.Admitted(request_id=name, incarnation=7, num_outputs=num_outputs, num_cached=num_cached)
    return log.StepResult(admitted=[admitted])


def rows(*ids: int) -> log.StepResult:
    """Several of one occupancy, which no step has; for tests it is shorter."""
    count = len(ids)
    return log.StepResult(**columns(range(count), [7] * count, ids, [Finish.NONE] * count))


def ended(reason: Finish, num_outputs: int = 0) -> list[log.Ended]:
    return [log.Ended(request_id="r", reason=finish_name(reason), num_outputs=num_outputs)]


async def test_an_end_in_the_results_of_one_group_waits_for_the_rows_of_another() -> None:
    stream = Scene()
    table = bound(stream)
    table.result("b", EPOCH, admission(2))
    table.result("b", EPOCH, rows(52))
    table.result("b", EPOCH, log.StepResult(ended=ended(Finish.CANCELLED)))
    assert not stream.ended
    table.result("a", EPOCH, admission())  # the same number of an occupancy, in another group
    table.result("a", EPOCH, rows(50, 51))
    assert stream.ended
    assert await ids_of(stream) == [50, 51, 52]


async def test_the_end_of_a_request_that_waits_names_the_tokens_that_it_has() -> None:
    stream = Scene()
    table = bound(stream)
    table.result("a", EPOCH, admission())
    table.result("a", EPOCH, rows(50))
    table.ended(EPOCH, ended(Finish.DEADLINE, num_outputs=2))
    table.ended(EPOCH + 1, ended(Finish.CANCELLED))  # another request of this name
    assert not stream.ended
    table.result("a", EPOCH, rows(51, 52))
    assert await ids_of(stream) == [50, 51]


async def test_an_error_names_the_groups_that_died_only_where_it_ran() -> None:
    for num_outputs, failure in ((0, REFUSED), (1, GROUPS_DIED)):
        stream = Scene()
        table = bound(stream)
        if num_outputs:
            table.result("a", EPOCH, admission())
            table.result("a", EPOCH, rows(50))
        table.ended(EPOCH, ended(Finish.ERROR, num_outputs))
        assert (await rest(stream))[-1].error.message == failure.message


async def test_a_removed_stream_leaves_no_row_and_takes_none_of_a_later_one() -> None:
    first, second = Scene(name="earlier"), Scene()
    table = bound(first)
    table.result("a", EPOCH, admission(name="earlier"))
    table.forget("a")  # it is opened in the next epoch
    later = bound(second)
    later.result("a", EPOCH, admission())
    table.merge(later)
    table.remove(first)
    table.result("a", EPOCH, rows(60))
    assert second[0].has_pending
    table.remove(second)
    assert not table._rows


async def test_tokens_of_a_fetch_that_failed_do_not_count_as_cached_whatever_is_read_first() -> None:
    """The request went on in group b: what a reports is read before what b does, or after."""
    failed = log.StepResult(unfetched=[7])
    for order in (("a", "failed", "b"), ("a", "b", "failed"), ("b", "a", "failed")):
        stream = Scene()
        table = bound(stream)
        for part in order:
            if part == "failed":
                table.result("a", EPOCH, failed)
            else:
                table.result(part, EPOCH, admission(num_cached=96 if part == "a" else 16))
        table.result("b", EPOCH, rows(50))
        stream.finish(Finish.CANCELLED)
        assert (await rest(stream))[-1].finished.usage.cached_prompt_tokens == 16, order
