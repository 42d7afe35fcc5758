"""One request's stream: rows come in from the follower, events go out to the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc

from albireo.codec import finish_name
from albireo.plan import Finish
from albireo.v1 import inference_pb2 as api
from gateway.detokenizer import Detokenizer, Vocabulary
from gateway.stop import StopFinder
from gateway.validation import ValidRequest


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a stream cannot go on."""

    code: grpc.StatusCode
    message: str
    retryable: bool


class TokenStream:
    """What has come for one request and has not been sent yet.

    The follower calls ``admit``, ``push``, ``end`` and ``fail``; whatever comes after the first final
    word is ignored. One consumer iterates over ``events``. What is pending goes into one message, so a
    slow reader gets fewer, larger ones; the request's max_tokens bounds it.
    """

    def __init__(self, request: ValidRequest, vocabulary: Vocabulary) -> None:
        self.request = request
        self.epoch: int | None = None  # set once the request is accepted
        self._ids: list[int] = []
        self._logprobs: list[api.TokenLogprobs] = []
        self._final: Finish | Failure | None = None
        self._wake = asyncio.Event()
        self._cached: int | None = None
        self._sent = 0
        self._detokenizer = Detokenizer(vocabulary)
        self._stop = StopFinder(request.stops)
        self.stopped_early = False  # a stop string was found: the scheduler does not know yet

    @property
    def over(self) -> bool:
        """Whether the final word has come."""
        return self._final is not None

    def admit(self, num_cached: int) -> None:
        """The request got a slot; the first time counts for its usage."""
        if self._cached is None:
            self._cached = num_cached

    def push(self, token: int, logprobs: api.TokenLogprobs | None, finish: int) -> None:
        """One row of the results log."""
        if self._final is not None:
            return
        if finish == Finish.ERROR:  # such a row carries no token
            self._final = Failure(
                grpc.StatusCode.INTERNAL, "the model's logits are not numbers", retryable=False
            )
        else:
            self._ids.append(token)
            if logprobs is not None:
                self._logprobs.append(logprobs)
            if finish:
                self._final = Finish(finish)
        self._wake.set()

    def end(self, reason: Finish) -> None:
        """The scheduler ended the request."""
        if self._final is None:
            if reason is Finish.ERROR:
                self._final = Failure(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "the worker group cannot hold this request",
                    retryable=False,
                )
            else:
                self._final = reason
            self._wake.set()

    def fail(self, failure: Failure) -> None:
        if self._final is None:
            self._final = failure
            self._wake.set()

    async def events(self) -> AsyncIterator[api.GenerateEvent]:
        """Tokens as they come, then ``finished`` or ``error``."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            final = self._final  # before the ids are taken: none can come after it
            ids, self._ids = self._ids, []
            logprobs, self._logprobs = self._logprobs, []
            text = self._text(ids)
            done = self._stop.found is not None
            if final is not None and not done:
                text += self._rest()
                done = self._stop.found is not None
            if ids or text:
                tokens = api.Tokens(offset=self._sent, ids=ids, text=text, logprobs=logprobs[: len(ids)])
                self._sent += len(ids)
                yield api.GenerateEvent(tokens=tokens)
            if done:
                self.stopped_early = final is None
                yield self._finished(Finish.STOP, stop=self._stop.found)
                return
            if isinstance(final, Failure):
                yield _error(final)
                return
            if final is not None:
                yield self._finished(final, last=ids[-1] if ids else None)
                return

    def _text(self, ids: list[int]) -> str:
        """Text of new ids; ``ids`` is cut after the one that completes a stop string."""
        early = min(max(0, self.request.sampling.min_tokens - self._sent), len(ids))
        text = self._detokenizer.push(ids[:early])  # a stop string in the first min_tokens is just text
        if not self.request.stops:
            return text + self._detokenizer.push(ids[early:])
        for index in range(early, len(ids)):
            text += self._stop.push(self._detokenizer.push([ids[index]]))
            if self._stop.found is not None:
                del ids[index + 1 :]
                break
        return text

    def _rest(self) -> str:
        text = self._stop.push(self._detokenizer.flush())
        return text if self._stop.found is not None else text + self._stop.flush()

    def _finished(
        self, reason: Finish, *, stop: str | None = None, last: int | None = None
    ) -> api.GenerateEvent:
        usage = api.Usage(
            prompt_tokens=len(self.request.prompt),
            cached_prompt_tokens=self._cached or 0,
            completion_tokens=self._sent,
        )
        finished = api.Finished(reason=finish_name(reason), usage=usage)
        if stop is not None:
            finished.stop = stop
        elif reason is Finish.STOP and last is not None:
            finished.stop_token_id = last
        return api.GenerateEvent(finished=finished)


def _error(failure: Failure) -> api.GenerateEvent:
    code: int = failure.code.value[0]
    return api.GenerateEvent(error=api.Error(code=code, message=failure.message, retryable=failure.retryable))
