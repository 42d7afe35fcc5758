"""Requests to the stack, and how they ended. Every check sends some."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from albireo.client import request_for
from albireo.v1 import inference_pb2_grpc

PROMPT = "What is 37 + 45?"
STORY = "Tell me a story about a fox."
STORY_TOKENS = 900
STORY_SECONDS = 120.0
CALL_SECONDS = 120.0
"""Of a short request: it may wait for a group to start."""


@dataclass(slots=True)
class Outcome:
    """One request: when it was sent and ended (monotonic seconds), and its error, if any."""

    sent: float
    ended: float = 0.0
    tokens: int = 0
    error: str = ""
    clear: bool = True

    @property
    def summary(self) -> str:
        return self.error or f"whole, {self.tokens} tokens"


def ask(target: str, prompt: str, *, timeout: float, **options: Any) -> Outcome:
    """Streams one answer to its end, over a connection of its own."""
    outcome = Outcome(time.monotonic())
    finished = False
    request = request_for(prompt, temperature=0, **options)
    with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            for event in inference_pb2_grpc.InferenceStub(channel).Generate(request, timeout=timeout):
                outcome.tokens += len(event.tokens.ids)
                finished = finished or event.HasField("finished")
                if event.HasField("error"):
                    outcome.error = f"Error: {event.error.message}"
                    outcome.clear = event.error.retryable and bool(event.error.message)
        except grpc.RpcError as error:
            outcome.error = f"{error.code().name}: {error.details()}"
            outcome.clear = error.code() is grpc.StatusCode.UNAVAILABLE and bool(error.details())
    outcome.ended = time.monotonic()
    if not outcome.error and not finished:
        outcome.error, outcome.clear = "the stream ended without a last event", False
    return outcome


@dataclass(slots=True)
class Stories:
    """Long streams in threads of their own."""

    outcomes: list[Outcome] = field(default_factory=list)
    threads: Sequence[threading.Thread] = ()

    @classmethod
    def start(cls, target: str, number: int) -> Stories:
        stories = cls()

        def stream() -> None:
            options = {"ignore_eos": True, "max_tokens": STORY_TOKENS}
            stories.outcomes.append(ask(target, STORY, timeout=STORY_SECONDS, **options))

        stories.threads = [threading.Thread(target=stream, daemon=True) for _ in range(number)]
        for thread in stories.threads:
            thread.start()
        return stories

    def join(self) -> list[Outcome]:
        """Waits for all; each has a timeout of its own."""
        for thread in self.threads:
            thread.join(timeout=STORY_SECONDS + 5)
        return self.outcomes

    def cut(self) -> list[str]:
        """Waits for all, and returns what is wrong with each that is not whole."""
        outcomes = self.join()
        cut = [one.summary for one in outcomes if one.error or one.tokens != STORY_TOKENS]
        return cut + ["it has not ended"] * (len(self.threads) - len(outcomes))


@dataclass(slots=True)
class Probe:
    """Sends one short question after the other, until ``stop`` is set. ``run`` is the body of a thread."""

    target: str
    outcomes: list[Outcome] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            self.outcomes.append(ask(self.target, PROMPT, max_tokens=4, timeout=CALL_SECONDS))
            self.stop.wait(0.05)

    def good_since(self, moment: float) -> int:
        """Number of successful answers at the end of the list, to questions sent after ``moment``."""
        count = 0
        for outcome in reversed(self.outcomes):
            if outcome.error or outcome.sent < moment:
                break
            count += 1
        return count
