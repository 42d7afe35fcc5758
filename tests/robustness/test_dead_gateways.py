"""A gateway process that is killed in the middle of a stream: its slots and its request ids come free.

The promise is that of ``request_id`` in ``inference.proto``. The right tokens are those of a request alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from albireo.contract.plan import GroupShape, SamplingParams
from albireo.local.redis_server import LocalRedis
from albireo.v1 import inference_pb2 as api
from tests.races.cluster import RedisCluster
from tests.races.scene import Scene
from tests.races.test_client_view import Client
from tests.scheduler_svc.core.worker_model import solo
from tests.stack import wait_for

PROMPT = (5, 6, 7)
TOKENS = 40


class Stage:
    """Two gateways before one scheduler and a scripted group."""

    def __init__(self, directory: Path, closing: ExitStack) -> None:
        server = LocalRedis(directory / "redis")
        closing.callback(server.stop)
        self.gateways = []
        for name in ("first", "second"):
            (directory / name).mkdir()
            gateway = Client(server.url, directory / name)
            closing.callback(gateway.close)
            self.gateways.append(gateway)
        cluster = RedisCluster(server.url)
        self.redis = cluster.redis
        self.scene = Scene(cluster, shape=GroupShape(64, 4, 256))
        closing.callback(self.scene.close)
        for gateway in self.gateways:
            wait_for(gateway.serving, 30, "a gateway does not serve")

    def heartbeats(self) -> set[bytes]:
        """The keys by which gateways are known to live."""
        return set(self.redis.scan_iter(f"{self.scene.keys.gateway('')}*"))

    def serve(self, call: Any) -> list[api.GenerateEvent]:
        """Answers plans until a stream has ended, and nothing runs any more."""
        events: list[api.GenerateEvent] = []
        reader = threading.Thread(target=lambda: events.extend(call))
        reader.start()
        self.scene.group.serve_until(lambda: not reader.is_alive() and not self.scene.load().running)
        return events


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as closing:
        yield Stage(tmp_path_factory.mktemp("gateways"), closing)


def code(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    found: grpc.StatusCode = raised.value.code()
    return found


def test_what_a_killed_gateway_left_is_cancelled_and_its_ids_are_free(stage: Stage) -> None:
    scene, (first, second) = stage.scene, stage.gateways
    calls = [first.generate(name, max_tokens=200) for name in ("same", "other")]
    plans = scene.fill()
    scene.group.answer(plans.pop(0))
    both = stage.heartbeats()
    first._process.kill()
    first._process.wait(10)
    assert [code(call) for call in calls] == [grpc.StatusCode.UNAVAILABLE] * 2
    # While it may be alive its ids stay taken, and what it left runs on.
    assert code(second._inference.Generate(message("same"), timeout=5)) is grpc.StatusCode.ALREADY_EXISTS
    wait_for(lambda: any(stage.redis.pttl(key) < 11_000 for key in both), 10, "no heartbeat runs out")
    [dead] = [key for key in both if stage.redis.pttl(key) < 11_000]
    assert stage.redis.pttl(dead) > 9_000
    stage.redis.delete(dead)  # as if those seconds were over

    began = time.monotonic()
    call = second.generate("same", max_tokens=TOKENS, seed=0)
    for plan in plans:
        scene.group.answer(plan)
    events = stage.serve(call)
    assert time.monotonic() - began < 5
    tokens = [token for event in events for token in event.tokens.ids]
    assert tokens == alone()
    assert events[-1].finished.reason == api.FINISH_REASON_LENGTH
    load = scene.load()
    assert (load.slots_free, load.waiting) == (load.slots_total, 0)
    assert list(load.integrity_violations) == []
    assert stage.heartbeats() == both - {dead}


def message(request_id: str) -> api.GenerateRequest:
    sampling = api.SamplingOptions(max_tokens=TOKENS, ignore_eos=True)
    return api.GenerateRequest(request_id=request_id, token_ids=api.TokenIds(ids=PROMPT), sampling=sampling)


def alone() -> list[int]:
    """What the scripted model makes of the prompt."""
    tokens, _ = solo(PROMPT, SamplingParams(max_tokens=TOKENS, seed=0, ignore_eos=True), 256)
    return tokens
