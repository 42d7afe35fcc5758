"""Redis at its memory limit: what runs finishes with all its tokens, new work is refused, service returns.

The right answers are the model's own, given before the limit; status and pushback are those of gRPC's retry
design (proposal A6: ``grpc-retry-pushback-ms``).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import redis

from albireo.v1 import inference_pb2 as api
from tests.stack import Answer, Running, ask, request, running_stack, wait_for

pytestmark = pytest.mark.slow

TOKENS = 400
LEASES = {"ALBIREO_SCHEDULER_LEASE_SECONDS": "1", "ALBIREO_WORKER_GROUP_TTL_SECONDS": "1"}
LONGER = 1.8
"""Seconds in which a lease that is not renewed runs out, and is missed by all who look for it."""
TEXTS = ("Tell me a story about a fox.", "What is 2 + 2?", "Name three colours.")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_stack(tmp_path_factory.mktemp("full"), LEASES) as running:
        yield running


@pytest.fixture(scope="module")
def alone(stack: Running) -> dict[str, list[int]]:
    """What each text brings while all is well."""
    return {text: ask(stack, long_request(text)).ids for text in TEXTS}


def pushback(error: Any) -> int:
    """After how many milliseconds the client may try again."""
    return int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])


def long_request(text: str, request_id: str = "") -> api.GenerateRequest:
    message = request(text, max_tokens=TOKENS, ignore_eos=True)
    message.request_id = request_id
    return message


def test_running_streams_finish_new_ones_are_refused_and_service_returns(
    stack: Running, alone: dict[str, list[int]]
) -> None:
    assert stack.stack._server is not None
    epoch = stack.load().epoch
    with redis.Redis.from_url(stack.stack._server.url) as server:
        calls = {text: stack.inference.Generate(long_request(text), timeout=60) for text in TEXTS}
        left = stack.inference.Generate(long_request("Another one.", "left"), timeout=60)
        begun = {text: [next(call), next(call)] for text, call in calls.items()}
        next(left)
        server.config_set("maxmemory", "100kb")
        full_since = time.monotonic()
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            server.set("anything", "x")

        with pytest.raises(grpc.RpcError) as refused:
            ask(stack, request("What is 1 + 1?"))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert pushback(refused.value) > 0
        assert stack.inference.Cancel(api.CancelRequest(request_id="left"), timeout=5).found
        assert list(left)[-1].finished.reason == api.FINISH_REASON_CANCELLED

        for text, call in calls.items():
            answer = Answer([*begun[text], *call])
            assert answer.kinds[-1] == "finished"
            assert answer.ids == alone[text]
        # Each tier must have renewed its lease at the limit.
        time.sleep(max(0.0, full_since + LONGER - time.monotonic()))
        wait_for(lambda: stack.load().running == 0, 5, "ended requests keep their slots")
        with pytest.raises(grpc.RpcError) as refused:
            ask(stack, request("What is 1 + 1?"))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

        server.config_set("maxmemory", 0)
    assert ask(stack, long_request(TEXTS[0])).ids == alone[TEXTS[0]]
    load = stack.wait_idle()
    assert load.epoch == epoch, "a tier was started again"
    assert load.slots_free == load.slots_total


@pytest.mark.parametrize("trouble", ["stands still", "takes no writes"])
def test_a_lack_of_memory_longer_than_a_lease_only_delays_streams(
    stack: Running, alone: dict[str, list[int]], trouble: str
) -> None:
    assert stack.stack._server is not None
    epoch = stack.load().epoch
    with redis.Redis.from_url(stack.stack._server.url) as server:
        call = stack.inference.Generate(long_request(TEXTS[0]), timeout=60)
        begun = [next(call), next(call)]
        process = int(server.info("server")["process_id"])
        if trouble == "stands still":
            os.kill(process, signal.SIGSTOP)
            time.sleep(LONGER)
            os.kill(process, signal.SIGCONT)
        else:
            server.config_set("min-replicas-to-write", 1)
            time.sleep(LONGER)
            server.config_set("min-replicas-to-write", 0)
    assert Answer([*begun, *call]).ids == alone[TEXTS[0]]
    assert stack.wait_idle().epoch == epoch, "a tier was started again"
