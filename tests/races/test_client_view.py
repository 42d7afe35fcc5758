"""Races as a client of a real gateway sees them: every stream gets its tokens once, and one last word."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from albireo.contract.plan import Finish, GroupShape, Plan, public_name
from albireo.local.ports import free_port
from albireo.local.redis_server import LocalRedis
from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from gateway.text.text_codec import TextCodec
from tests.races.cluster import RedisCluster
from tests.races.reader import Story
from tests.races.scene import MODEL, Scene
from tests.stack import wait_for
from tests.streams import rest as rest_of

DEADLINE_SECONDS = 5.0
"""Most that any request may take here."""


class Client:
    """A gateway process, and calls to it."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        port = free_port("127.0.0.1")
        options = {
            "ALBIREO_REDIS_URL": url,
            "ALBIREO_MODEL_NAME": MODEL,
            "ALBIREO_GATEWAY_MODEL": str(TINY),
            "ALBIREO_GATEWAY_PORT": str(port),
            "ALBIREO_GATEWAY_MAX_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
            "ALBIREO_GATEWAY_DRAIN_SECONDS": "0",
        }
        with (directory / "gateway.log").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "albireo.cli", "gateway"],
                env={**os.environ, **options},
                stdout=output,
                stderr=output,
            )
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._inference = inference_pb2_grpc.InferenceStub(self._channel)

    def close(self) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.wait(10)

    def serving(self) -> bool:
        request = health_pb2.HealthCheckRequest()
        try:
            reply = self._health.Check(request, timeout=1)  # type: ignore[attr-defined]
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def generate(self, request_id: str, *, timeout: float = 30, **sampling: Any) -> Any:
        """An accepted stream, its first event read."""
        options = api.SamplingOptions(**{"max_tokens": 50, "ignore_eos": True, **sampling})
        prompt = api.TokenIds(ids=[5, 6, 7])
        message = api.GenerateRequest(request_id=request_id, token_ids=prompt, sampling=options)
        call = self._inference.Generate(message, timeout=timeout)
        assert next(call).WhichOneof("event") == "accepted"
        return call

    def cancel(self, request_id: str) -> None:
        assert self._inference.Cancel(api.CancelRequest(request_id=request_id), timeout=5).found


def rest(call: Any) -> tuple[list[int], api.GenerateEvent]:
    """The tokens of a stream, and its last event."""
    events = rest_of(call)
    assert all(event.HasField("tokens") for event in events[:-1])
    return [token for event in events for token in event.tokens.ids], events[-1]


def ends_of(plan: Plan) -> list[tuple[str, Finish]]:
    """The requests that a plan ends, by the ids that their clients gave."""
    return [(public_name(ended.request_id), ended.reason) for ended in plan.ended]


MakeScene = Callable[..., Scene]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """With a Redis of its own: other tests empty the common one."""
    directory = tmp_path_factory.mktemp("client")
    with ExitStack() as closing:
        server = LocalRedis(directory / "redis")
        closing.callback(server.stop)
        client = Client(server.url, directory)
        closing.callback(client.close)
        yield client


@pytest.fixture
def make_scene(client: Client) -> Iterator[MakeScene]:
    """A scheduler and a scripted group behind the gateway."""
    with ExitStack() as closing:

        def make(**options: Any) -> Scene:
            scene = Scene(RedisCluster(client.url), shape=GroupShape(64, 4, 256), **options)
            closing.callback(scene.close)
            wait_for(client.serving, 30, "the gateway does not serve")
            return scene

        yield make


@pytest.mark.parametrize("look_ahead", [1, 4])
def test_a_client_never_sees_a_row_beyond_eos(client: Client, make_scene: MakeScene, look_ahead: int) -> None:
    scene = make_scene(look_ahead=look_ahead, script={"eos": [5, 6, 0, 9, 9, 9, 9, 9]})
    call = client.generate("eos", ignore_eos=False)
    scene.finish("eos", hold=look_ahead)
    tokens, last = rest(call)
    assert tokens == [5, 6, 0]
    assert last.finished.reason == api.FINISH_REASON_STOP
    assert last.finished.usage.completion_tokens == 3


@pytest.mark.parametrize("look_ahead", [1, 4])
def test_branches_reach_the_client_each_with_its_own_end(
    client: Client, make_scene: MakeScene, look_ahead: int
) -> None:
    script = {"several#0": [5, 6, 7, 8], "several#1": [5, 0, 9, 9], "several#2": [9, 8, 7, 6]}
    scene = make_scene(look_ahead=look_ahead, script=script)
    call = client.generate("several", ignore_eos=False, n=3, max_tokens=4)
    scene.finish("several#0", "several#1", "several#2", hold=look_ahead)
    events = rest_of(call)
    tokens: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for event in events:
        tokens[event.tokens.index] += event.tokens.ids
    ends = {event.finished.index: event.finished for event in events if event.HasField("finished")}
    assert tokens == {0: [5, 6, 7, 8], 1: [5, 0], 2: [9, 8, 7, 6]}
    assert [ends[index].reason for index in range(3)] == [
        api.FINISH_REASON_LENGTH,
        api.FINISH_REASON_STOP,
        api.FINISH_REASON_LENGTH,
    ]


def test_a_stop_string_frees_the_slot_of_its_branch_alone(client: Client, make_scene: MakeScene) -> None:
    text = "fox"
    ids = TextCodec(TINY).encode(text)
    scene = make_scene(script={"one#0": [9] * 50, "one#1": [9, *ids, *[9] * 40]})
    call = client.generate("one", n=2, stop=[text])
    plans = scene.group.serve_until(lambda: bool(scene.story("one#1").final))
    scene.finish("one#0", "one#1")
    events = rest_of(call)
    ends = [event.finished for event in events if event.HasField("finished")]
    assert [(end.index, end.stop) for end in ends] == [(1, text), (0, "")]
    assert ("one#1", Finish.CANCELLED) in [end for plan in plans for end in ends_of(plan)]
    assert scene.story("one#0") == Story([9] * 50, Finish.LENGTH)


def test_a_client_that_leaves_with_steps_in_flight_frees_its_slot(
    client: Client, make_scene: MakeScene
) -> None:
    scene = make_scene()
    call = client.generate("leaver")
    first, second = scene.fill()
    scene.group.answer(first)
    assert len(next(call).tokens.ids) == 1
    third = scene.group.next_plan()
    call.cancel()
    assert scene.group.plan_within(0.3) is None  # the window is full; the cancellation is in the inbox
    scene.group.answer(second)
    plan = scene.group.next_plan()
    assert ends_of(plan) == [("leaver", Finish.CANCELLED)]
    scene.group.answer(third)
    scene.group.answer(plan)
    scene.finish()


def test_the_end_that_stands_first_in_the_log_is_the_clients(client: Client, make_scene: MakeScene) -> None:
    """Cancelled while the row that ends it is in flight: the later `ended` changes nothing."""
    scene = make_scene(look_ahead=1, script={"both": [5, 0]})
    call = client.generate("both", ignore_eos=False)
    first, second = scene.fill()
    client.cancel("both")
    assert scene.group.plan_within(0.3) is None
    scene.group.answer(first)
    plan = scene.group.next_plan()
    assert ends_of(plan) == [("both", Finish.CANCELLED)]
    scene.group.answer(second)
    scene.group.answer(plan)
    tokens, last = rest(call)
    assert tokens == [5, 0]
    assert last.finished.reason == api.FINISH_REASON_STOP
    scene.finish()


def test_streams_of_a_group_that_stalls_and_loses_its_lease_go_on_in_another(
    client: Client, make_scene: MakeScene
) -> None:
    scene = make_scene()
    names = ("running", "running-too")
    calls = [client.generate(name) for name in names]
    for _ in range(3):
        scene.group.answer(scene.group.next_plan())
    scene.group.stop_renewing(0.3)
    scene.group.wait_closed()
    scene.replace_group()
    plans = scene.finish(*names)
    assert any(admission.num_outputs for plan in plans for admission in plan.admissions)
    for name, call in zip(names, calls, strict=True):
        tokens, last = rest(call)
        assert (tokens, len(tokens)) == (scene.story(name).ids, 50)
        assert last.finished.reason == api.FINISH_REASON_LENGTH


def test_a_group_that_stalls_and_keeps_its_lease_holds_nobody_beyond_his_deadline(
    client: Client, make_scene: MakeScene
) -> None:
    scene = make_scene(max_num_seqs=1)
    running, waiting = client.generate("running"), client.generate("waiting")
    flight = scene.fill()
    scene.group.answer(flight.pop(0))
    flight.append(scene.group.next_plan())
    impatient = client.generate("impatient", timeout=1.0)
    with pytest.raises(grpc.RpcError) as raised:
        rest(impatient)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    for call, delivered in ((running, 1), (waiting, 0)):
        tokens, last = rest(call)
        assert len(tokens) == delivered
        assert last.finished.reason == api.FINISH_REASON_DEADLINE
    # The gateway's clock and the scheduler's began a moment apart.
    wait_for(lambda: not scene.load().waiting, 10, "the scheduler keeps a request beyond its deadline")
    # Once it answers again, the next plan ends the one that runs, and nothing of all three is left.
    scene.group.answer(flight.pop(0))
    plan = scene.group.next_plan()
    assert [name for name, _ in ends_of(plan)] == ["running"]  # notices have ended the others
    assert plan.num_decodes == 0
    for held in (*flight, plan):
        scene.group.answer(held)
    scene.finish()


def test_a_new_scheduler_ends_the_streams_of_the_old_one_and_late_results_reach_nobody(
    client: Client, make_scene: MakeScene
) -> None:
    scene = make_scene(script={"handed-over": [5, 6, 7, 8]})
    call = client.generate("handed-over")
    first, second = scene.fill()
    scene.group.answer(first)
    late = scene.group.run(second)
    scene.restart_scheduler()
    assert scene.group.refused(second, late)
    tokens, last = rest(call)
    assert tokens == [5]
    assert last.error.retryable
    again = client.generate("handed-over")
    scene.finish("handed-over")
    tokens, _ = rest(again)
    assert (tokens[:4], len(tokens)) == ([5, 6, 7, 8], 50)
