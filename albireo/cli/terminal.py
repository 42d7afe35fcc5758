"""Streaming an answer to the terminal; shared by the commands that do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import grpc
import typer

from albireo.client import DEFAULT_TARGET
from albireo.v1 import inference_pb2 as api

Target = Annotated[str, typer.Option(envvar="ALBIREO_TARGET", help="Address of a gateway, host:port.")]
TARGET = DEFAULT_TARGET


@dataclass(slots=True)
class Answer:
    """What a stream brought, and when."""

    text: str = ""
    tokens: int = 0
    ttft: float = 0.0  # seconds to the first token
    seconds: float = 0.0  # from the first token to the last
    finish: str = ""
    simulated: bool = False

    def summary(self) -> str:
        rate = f"{(self.tokens - 1) / self.seconds:.1f} tokens/s" if self.seconds > 0 else "-- tokens/s"
        label = "SIMULATED device, the tokens are made up: " if self.simulated else ""
        return f"{label}{self.tokens} tokens, TTFT {self.ttft * 1000:.0f} ms, {rate}, finish: {self.finish}"


def stream_answer(events: Iterator[api.GenerateEvent], *, show: bool = True) -> Answer:
    """Writes the text to standard output as it comes. Ends the command on an error, exit status 1."""
    answer, began, first = Answer(), time.monotonic(), 0.0
    try:
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "tokens":
                now = time.monotonic()
                if not answer.tokens:
                    first, answer.ttft = now, now - began
                answer.seconds = now - first
                answer.tokens += len(event.tokens.ids)
                answer.text += event.tokens.text
                if show:
                    sys.stdout.write(event.tokens.text)
                    sys.stdout.flush()
            elif kind == "accepted":
                answer.simulated = event.accepted.simulated
            elif kind == "finished":
                answer.finish = (
                    api.FinishReason.Name(event.finished.reason).removeprefix("FINISH_REASON_").lower()
                )
            elif kind == "error":
                fail(f"{event.error.message}{' (try again)' if event.error.retryable else ''}")
    except grpc.RpcError as error:
        fail(describe(error))
    except UnicodeEncodeError:  # bytes of the command line that Python could not decode
        fail("the prompt is not UTF-8")
    return answer


def describe(error: grpc.RpcError) -> str:
    """Status and message of a failed call, in a line."""
    code = error.code()
    return f"{code.name if code else 'UNKNOWN'}: {error.details()}"


def fail(message: str) -> None:
    """Ends the command with one line on standard error, exit status 1."""
    typer.echo(f"albireo: {message}", err=True)
    raise typer.Exit(1)
