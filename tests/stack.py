"""The real stack: real processes, a real Redis, the bundled model, sockets on loopback.

Used by every test that needs a whole stack. The stack that most of them share is the fixture ``tp2``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from redis import Redis

from albireo.local.settings import StackSettings
from albireo.local.stack import Stack
from albireo.models import TINY
from albireo.store.interface import LAST_STEP, EntryId
from albireo.store.redis_log import RedisLog
from albireo.v1 import control_pb2, control_pb2_grpc, inference_pb2, inference_pb2_grpc
from tests.streams import rest


class Running:
    """A stack that serves, and a client of it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.channel = grpc.insecure_channel(stack.target)
        self.inference = inference_pb2_grpc.InferenceStub(self.channel)
        self.control = control_pb2_grpc.ControlStub(self.channel)

    def load(self) -> control_pb2.Load:
        return self.control.GetLoad(control_pb2.GetLoadRequest(), timeout=5)

    def wait_idle(self, seconds: float = 20) -> control_pb2.Load:
        """The load once nothing runs or waits and the ledger has been checked since.

        The load is published a few times a second: one from before the last result says nothing of what has
        run since.
        """
        load = control_pb2.Load()

        def idle() -> bool:
            nonlocal load
            results = {
                group.incarnation: self._last_result(redis, group.incarnation) for group in load.groups
            }
            load = self.load()
            return (
                not (load.waiting or load.running or load.steps_in_flight)
                and load.integrity_checked_step == load.step
                and {group.incarnation for group in load.groups} == results.keys()
                and all((load.epoch, group.step) >= results[group.incarnation] for group in load.groups)
            )

        with self.stack._redis() as redis:
            wait_for(idle, seconds, "the stack did not become idle")
        return load

    def _last_result(self, redis: Redis, incarnation: str) -> EntryId:
        """Of one life of a group; a closed one has no later result, whatever its last entry is."""
        last = EntryId.parse(RedisLog(redis, self.stack._keys.results(incarnation)).last())
        return EntryId(last.epoch, 0) if last.step == LAST_STEP else last


def wait_for(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Waits until ``condition`` holds; fails the test with ``otherwise`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(otherwise)
        time.sleep(0.02)


@contextmanager
def running_stack(
    data_dir: Path, environment: Mapping[str, str] | None = None, **options: object
) -> Iterator[Running]:
    """A stack on free ports, watched and restarted as `albireo up` does it.

    ``environment``: options of its services, as their own variables.
    """
    settings = StackSettings.model_validate(
        {"model": TINY, "dtype": "float32", "port": 0, "data_dir": data_dir, "start_seconds": 60, **options}
    )
    stop = threading.Event()
    with Stack(settings, environment) as stack:
        assert stack.wait_ready(stop)
        watcher = threading.Thread(target=stack.watch, args=(stop,))
        watcher.start()
        running = Running(stack)
        try:
            yield running
        finally:
            running.channel.close()
            stop.set()
            watcher.join(timeout=20)


def request(
    text: str, *, max_tokens: int = 48, chat: bool = True, **sampling: object
) -> inference_pb2.GenerateRequest:
    """A greedy request, unless ``sampling`` says otherwise."""
    options = inference_pb2.SamplingOptions(**{"temperature": 0, "max_tokens": max_tokens, **sampling})  # type: ignore[arg-type]
    if not chat:
        return inference_pb2.GenerateRequest(text=text, sampling=options)
    messages = [inference_pb2.ChatMessage(role="user", content=text)]
    return inference_pb2.GenerateRequest(chat=inference_pb2.Chat(messages=messages), sampling=options)


class Answer:
    """What a finished stream brought."""

    def __init__(self, events: list[inference_pb2.GenerateEvent]) -> None:
        self.events = events
        self.kinds = [event.WhichOneof("event") for event in events]
        self.ids = [i for event in events for i in event.tokens.ids]
        self.text = "".join(event.tokens.text for event in events)
        self.finished = events[-1].finished
        self.error = events[-1].error

    def branch(self, index: int) -> tuple[list[int], str, inference_pb2.Finished]:
        """Ids, text and end of one branch."""
        parts = [event.tokens for event in self.events if event.HasField("tokens")]
        own = [part for part in parts if part.index == index]
        offsets = [sum(len(part.ids) for part in own[:n]) for n in range(len(own))]
        assert [part.offset for part in own] == offsets
        ends = [event.finished for event in self.events if event.HasField("finished")]
        [end] = [end for end in ends if end.index == index]
        return [token for part in own for token in part.ids], "".join(part.text for part in own), end


def ask(running: Running, message: inference_pb2.GenerateRequest, timeout: float = 60) -> Answer:
    return Answer(rest(running.inference.Generate(message, timeout=timeout)))
