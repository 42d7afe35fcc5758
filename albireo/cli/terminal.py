"""Streaming an answer to the terminal; shared by the commands that do."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import grpc
import typer

from albireo.client import DEFAULT_TARGET, describe
from albireo.v1 import inference_pb2 as api

Target = Annotated[str, typer.Option(envvar="ALBIREO_TARGET", help="Address of a gateway, host:port.")]
TARGET = DEFAULT_TARGET


@dataclass(slots=True)
class Answer:
    """One answer of a stream: that of one branch."""

    seed: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[api.TokenLogprobs] = field(default_factory=list)  # one a token, if asked for
    finish: str = ""


@dataclass(slots=True)
class Stream:
    """What a stream brought, and when."""

    answers: list[Answer] = field(default_factory=list)  # by branch
    prompt_logprobs: list[api.TokenLogprobs] = field(default_factory=list)
    ttft: float = 0.0  # seconds to the first token
    seconds: float = 0.0  # from the first token to the last
    simulated: bool = False

    @property
    def tokens(self) -> int:
        """Of all branches."""
        return sum(len(answer.tokens) for answer in self.answers)

    def summary(self) -> str:
        tokens, ends = self.tokens, ", ".join(answer.finish for answer in self.answers)
        rate = f"{(tokens - 1) / self.seconds:.1f} tokens/s" if self.seconds > 0 else "-- tokens/s"
        label = "SIMULATED device, the tokens are made up: " if self.simulated else ""
        return f"{label}{tokens} tokens, TTFT {self.ttft * 1000:.0f} ms, {rate}, finish: {ends}"


def read_stream(events: Iterator[api.GenerateEvent], *, show: bool = True) -> Stream:
    """Reads a stream to its end. Ends the command on an error, exit status 1.

    With ``show`` the text of a single answer goes to standard output as it comes, and each of several
    answers as a whole when it has ended, under its number.
    """
    stream, began, first = Stream(), time.monotonic(), 0.0
    try:
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "accepted":
                stream.answers = [Answer(seed) for seed in event.accepted.branch_seeds]
                stream.simulated = event.accepted.simulated
                if stream.simulated:
                    typer.echo("(simulated device: the tokens are made up)", err=True)
            elif kind == "prompt_logprobs":
                stream.prompt_logprobs += event.prompt_logprobs.logprobs
            elif kind == "tokens":
                now = time.monotonic()
                if not first:
                    first, stream.ttft = now, now - began
                stream.seconds = now - first
                answer = stream.answers[event.tokens.index]
                answer.tokens += event.tokens.ids
                answer.logprobs += event.tokens.logprobs
                answer.text += event.tokens.text
                if show and len(stream.answers) == 1:
                    sys.stdout.write(event.tokens.text)
                    sys.stdout.flush()
            elif kind == "finished":
                index, answer = event.finished.index, stream.answers[event.finished.index]
                answer.finish = (
                    api.FinishReason.Name(event.finished.reason).removeprefix("FINISH_REASON_").lower()
                )
                if show and len(stream.answers) > 1:
                    typer.echo(f"[{index}] {answer.text}")
            elif kind == "error":
                fail(f"{event.error.message}{' (try again)' if event.error.retryable else ''}")
    except grpc.RpcError as error:
        fail(describe(error))
    except UnicodeEncodeError:  # bytes of the command line that Python could not decode
        fail("the prompt is not UTF-8")
    return stream


def fail(message: str) -> None:
    """Ends the command with one line on standard error, exit status 1."""
    typer.echo(f"albireo: {message}", err=True)
    raise typer.Exit(1)


def needs_matplotlib() -> None:
    """Ends the command before it has done anything where pictures cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        fail("pictures need matplotlib: pip install 'albireo[bench]'")
