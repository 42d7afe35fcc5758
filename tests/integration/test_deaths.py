"""Each tier is killed under load: streams end with a retryable error, and the stack serves again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from albireo.store.connection import connect
from albireo.v1 import inference_pb2 as api
from tests.stack import Answer, Running, ask, request, running_stack, wait_for
from tests.streams import rest


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_stack(tmp_path_factory.mktemp("deaths"), tp=2) as running:
        yield running


def long_request(tokens: int = 900) -> api.GenerateRequest:
    return request("Tell me a story about a fox.", max_tokens=tokens, ignore_eos=True)


def serves(running: Running) -> bool:
    try:
        return ask(running, request("What is 1 + 1?"), timeout=10).kinds[-1] == "finished"
    except grpc.RpcError:
        return False


def test_a_killed_scheduler_ends_its_streams_with_a_retryable_error_and_comes_back(stack: Running) -> None:
    wait_for(lambda: serves(stack), 60, "the stack does not serve")
    calls = [stack.inference.Generate(long_request(), timeout=60) for _ in range(4)]
    begun = [[next(call), next(call)] for call in calls]
    os.kill(stack.stack.units["scheduler"].pids[0], signal.SIGKILL)
    killed = time.monotonic()
    for first, call in zip(begun, calls, strict=True):
        answer = Answer([*first, *rest(call)])
        assert answer.kinds[-1] == "error"
        assert answer.error.retryable
        assert answer.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert time.monotonic() - killed < 8
    wait_for(lambda: serves(stack), 60, "the stack did not come back")
    load = stack.wait_idle()
    assert load.blocks_free == load.blocks_total
    assert list(load.integrity_violations) == []


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_streams_of_a_killed_rank_go_on_once_its_group_is_back(stack: Running, rank: int) -> None:
    """There is no other group: they wait for this one's next life, and bring what they would have brought."""
    wait_for(lambda: serves(stack), 60, "the stack does not serve")
    expected = ask(stack, long_request(400)).ids
    calls = [stack.inference.Generate(long_request(400), timeout=90) for _ in range(4)]
    begun = [[next(call), next(call)] for call in calls]
    os.kill(stack.stack.units["g0"].pids[rank], signal.SIGKILL)
    for first, call in zip(begun, calls, strict=True):
        answer = Answer([*first, *rest(call)])
        assert answer.kinds[-1] == "finished"
        assert answer.ids == expected
    load = stack.wait_idle()
    assert load.blocks_free == load.blocks_total
    assert list(load.integrity_violations) == []


@pytest.mark.parametrize("busy", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_redis_that_lost_everything_is_begun_anew_with(stack: Running, busy: bool) -> None:
    """As after a restart without an append-only file: logs and the count of epochs are gone."""
    wait_for(lambda: serves(stack), 60, "the stack does not serve")
    call = stack.inference.Generate(long_request(), timeout=60)
    first = [next(call), next(call)]
    if not busy:
        call.cancel()
        stack.wait_idle()
    assert stack.stack._server is not None
    with connect(stack.stack._server.url) as redis:
        redis.flushall()
    if busy:
        answer = Answer([*first, *rest(call)])
        assert answer.kinds[-1] == "error"
        assert answer.error.retryable
    wait_for(lambda: serves(stack), 60, "the stack did not come back")
    load = stack.wait_idle()
    assert load.blocks_free == load.blocks_total


@pytest.mark.slow
def test_a_killed_gateway_leaves_nothing_behind(stack: Running) -> None:
    """Its clients see a broken stream; the next gateway serves, and no request runs on for ever."""
    wait_for(lambda: serves(stack), 60, "the stack does not serve")
    call = stack.inference.Generate(long_request(), timeout=60)
    next(call)
    os.kill(stack.stack.units["gateway"].pids[0], signal.SIGKILL)
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    wait_for(lambda: serves(stack), 60, "the stack did not come back")
    load = stack.wait_idle(60)
    assert load.slots_free == load.slots_total


def test_a_client_that_goes_away_frees_its_slot_at_once(stack: Running) -> None:
    wait_for(lambda: serves(stack), 60, "the stack does not serve")
    call = stack.inference.Generate(long_request(), timeout=60)
    next(call)
    next(call)
    call.cancel()
    wait_for(lambda: stack.load().running == 0, 5, "a cancelled request goes on")


@pytest.mark.slow
def test_the_same_request_can_be_sent_again_after_a_retryable_error(stack: Running, tmp_path: Path) -> None:
    wait_for(lambda: serves(stack), 60, "the stack does not serve")
    message = request("Tell me a story about a fox.", max_tokens=400, ignore_eos=True)
    message.request_id = "again"
    call = stack.inference.Generate(message, timeout=60)
    next(call)
    os.kill(stack.stack.units["scheduler"].pids[0], signal.SIGKILL)
    assert rest(call)[-1].WhichOneof("event") == "error"
    wait_for(lambda: serves(stack), 60, "the stack did not come back")
    assert len(ask(stack, message).ids) == 400
