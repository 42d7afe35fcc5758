"""The answers of one request, read from its stream and shown in the terminal; used by generate and chat."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:  # imported where a call is made: `--help` needs none of it
    from albireo.v1 import inference_pb2 as api


class StreamFailed(Exception):
    """The stream ended before its answers were complete; the message says why, in a line."""


@dataclass(slots=True)
class Answer:
    """One answer of a stream: that of one branch of the request."""

    seed: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[api.TokenLogprobs] = field(default_factory=list)  # one a token, if asked for
    finish: str = ""
    error: str = ""  # why it ended, where it failed and the others went on


@dataclass(slots=True)
class Stream:
    """Everything received from a stream, with times."""

    answers: list[Answer] = field(default_factory=list)  # by branch
    prompt_logprobs: list[api.TokenLogprobs] = field(default_factory=list)
    ttft: float = 0.0  # seconds to the first token
    seconds: float = 0.0  # from the first token to the last
    simulated: bool = False

    @property
    def tokens(self) -> int:
        """Of all branches."""
        return sum(len(answer.tokens) for answer in self.answers)

    @property
    def text(self) -> str:
        """Of the first answer."""
        return self.answers[0].text if self.answers else ""

    def summary(self) -> str:
        """Tokens, TTFT, tokens per second and finish reasons, in a line."""
        tokens, reasons = self.tokens, ", ".join(answer.finish for answer in self.answers)
        rate = f"{(tokens - 1) / self.seconds:.1f} tokens/s" if self.seconds > 0 else "-- tokens/s"
        label = "SIMULATED device, the tokens are made up: " if self.simulated else ""
        return f"{label}{tokens} tokens, TTFT {self.ttft * 1000:.0f} ms, {rate}, finish: {reasons}"

    def read(self, events: Iterator[api.GenerateEvent], *, show: bool = True) -> None:
        """Reads a stream to its end. Raises StreamFailed; what was received before is kept.

        With ``show`` the text of a single answer goes to standard output as it comes, and each of several
        answers as a whole when it has ended, under its number.
        """
        import grpc

        from albireo.client import describe

        began = time.monotonic()
        try:
            for event in events:
                kind = event.WhichOneof("event")
                if kind == "accepted":
                    self._accept(event.accepted)
                elif kind == "prompt_logprobs":
                    self.prompt_logprobs += event.prompt_logprobs.logprobs
                elif kind == "tokens":
                    self._add(event.tokens, began, show=show)
                elif kind == "finished":
                    self._finish(event.finished, show=show)
                elif kind == "error":
                    self._fail(event.error)
        except grpc.RpcError as error:
            raise StreamFailed(describe(error)) from None

    def _accept(self, accepted: api.Accepted) -> None:
        self.answers = [Answer(seed) for seed in accepted.branch_seeds]
        self.simulated = accepted.simulated
        if self.simulated:
            typer.echo("(simulated device: the tokens are made up)", err=True)

    def _add(self, tokens: api.Tokens, began: float, *, show: bool) -> None:
        now = time.monotonic()
        if not self.ttft:
            self.ttft = now - began
        self.seconds = now - began - self.ttft
        answer = self.answers[tokens.index]
        answer.tokens += tokens.ids
        answer.logprobs += tokens.logprobs
        answer.text += tokens.text
        if show and len(self.answers) == 1:
            sys.stdout.write(tokens.text)
            sys.stdout.flush()

    def _finish(self, finished: api.Finished, *, show: bool) -> None:
        from albireo.v1 import inference_pb2 as api

        answer = self.answers[finished.index]
        answer.finish = api.FinishReason.Name(finished.reason).removeprefix("FINISH_REASON_").lower()
        if show and len(self.answers) > 1:
            typer.echo(f"[{finished.index}] {answer.text}")

    def _fail(self, error: api.Error) -> None:
        if not error.HasField("index"):
            raise StreamFailed(f"{error.message}{' (try again)' if error.retryable else ''}")
        answer = self.answers[error.index]
        answer.finish, answer.error = "error", error.message
