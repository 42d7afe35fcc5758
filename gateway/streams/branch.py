"""One answer on its way: rows come in, events go out."""

from __future__ import annotations

import asyncio
import time

import grpc

from albireo.contract.codec import finish_name
from albireo.contract.plan import Finish
from albireo.v1 import inference_pb2 as api
from gateway.requests.validation import ValidRequest
from gateway.streams.failures import Failure
from gateway.streams.messages import parsed, tokens_that_fit
from gateway.text.detokenizer import Detokenizer, Vocabulary
from gateway.text.stop import StopFinder


class Branch:
    """What has come for one of the ``n`` answers to a request and has not been sent yet.

    ``admit``, ``push``, ``end`` and ``close`` put in, and wake the stream; whatever comes after the first
    final word is ignored. The stream takes out. What is pending goes into one message, so a slow reader
    gets fewer, larger ones; the request's max_tokens bounds it.
    """

    def __init__(
        self, request: ValidRequest, index: int, vocabulary: Vocabulary, wake: asyncio.Event
    ) -> None:
        self.index = index
        self._request = request
        self._wake = wake
        self._ids: list[int] = []
        self._logprobs: list[bytes] = []  # encoded: as messages, they would keep the whole step's result
        self._final: Finish | Failure | None = None
        self._closed = False
        self._cached: int | None = None
        self.sent = 0  # tokens
        self.first_at = self.last_at = 0.0  # monotonic seconds at which tokens were taken; 0: none were
        self._vocabulary = vocabulary
        self._detokenizer = Detokenizer(vocabulary, request.prompt)
        self._stop = StopFinder(request.stops, include=request.include_stop)
        self._end_token: int | None = None  # the end or stop token that was drawn
        self.done = False  # its last event has been taken
        self.stopped_early = False  # a stop string was found: the scheduler does not know yet

    @property
    def over(self) -> bool:
        """Whether the final word has come."""
        return self._final is not None or self._closed or self.done

    @property
    def outcome(self) -> Finish | Failure | None:
        """How it ended; None where it has not, or where the whole stream failed."""
        return self._final if self._stop.found is None else Finish.STOP

    @property
    def cached(self) -> int:
        """Tokens of the prompt that it found computed."""
        return self._cached or 0

    @property
    def pending(self) -> bool:
        """Whether tokens are left to take."""
        return bool(self._ids)

    def admit(self, num_cached: int) -> None:
        """It got a slot; the first time counts for its usage."""
        if self._cached is None:
            self._cached = num_cached

    def push(self, token: int, logprobs: api.TokenLogprobs | None, finish: int) -> None:
        """One row of the results log."""
        if self.over:
            return
        if finish == Finish.ERROR:  # such a row carries no token
            self._final = Failure(
                grpc.StatusCode.INTERNAL,
                "no token can be drawn: the model's logits are not numbers, or the controls leave none",
                retryable=False,
            )
        else:
            self._ids.append(token)
            if logprobs is not None:
                self._logprobs.append(logprobs.SerializeToString())
            if finish:
                self._final = Finish(finish)
            if finish == Finish.STOP:
                self._end_token = token
        self._wake.set()

    def end(self, reason: Finish) -> None:
        """Somebody ended it."""
        if not self.over:
            self._final = reason
            self._wake.set()

    def close(self) -> None:
        """The whole stream fails: nothing more is taken in, what is pending goes out without a last word."""
        self._closed = True

    def take(self) -> list[api.GenerateEvent]:
        """As much of what is pending as one message takes; if that is all, with the last word if it has come.

        Take again as long as there is something ``pending``.
        """
        count = tokens_that_fit(self._logprobs, self._vocabulary.longest_text)
        ids, self._ids = self._ids[:count], self._ids[count:]
        logprobs, self._logprobs = self._logprobs[:count], self._logprobs[count:]
        final = None if self._ids else self._final
        text = self._text(ids)
        if self.over and not self._ids and self._stop.found is None:
            text += self._rest(len(ids))
        events = []
        if ids or text:
            tokens = api.Tokens(
                offset=self.sent, ids=ids, text=text, logprobs=parsed(logprobs[: len(ids)]), index=self.index
            )
            self.sent += len(ids)
            self.last_at = time.monotonic()
            self.first_at = self.first_at or self.last_at
            events.append(api.GenerateEvent(tokens=tokens))
        if self._stop.found is not None:
            self.stopped_early = self._final is None
            self._ids.clear()  # nothing comes after a stop string
            events.append(self._finished(Finish.STOP, stop=self._stop.found))
        elif isinstance(final, Failure):
            events.append(final.event(self.index if self._request.n > 1 else None))
        elif final is not None:
            events.append(self._finished(final))
        self.done = final is not None or self._stop.found is not None
        return events

    def _text(self, ids: list[int]) -> str:
        """Text of new ids; ``ids`` is cut after the one that completes a stop string."""
        last = ids and not self._ids  # of all that came
        visible = ids[:-1] if last and self._ends_silently() else ids
        if not self._request.stops:
            return self._detokenizer.push(visible)
        parts = []
        for index, token in enumerate(visible):
            counts = self._counts(index + 1)
            if token in self._vocabulary.special:
                name = self._vocabulary.text(token)
                parts.append(self._stop.push(name, counts=counts, hidden=True))
            else:
                parts.append(self._stop.push(self._detokenizer.push([token]), counts=counts))
            if self._stop.found is not None:
                del ids[index + 1 :]
                break
        return "".join(parts)

    def _ends_silently(self) -> bool:
        """Whether the last token has no text: the model's end, and stop tokens unless they are asked for."""
        wanted = self._request.include_stop and self._end_token in self._request.sampling.stop_ids
        return self._end_token is not None and not wanted

    def _counts(self, new: int) -> bool:
        """Whether a stop string may end with the ``new``-th token that has not been sent."""
        return self.sent + new > self._request.sampling.min_tokens

    def _rest(self, new: int) -> str:
        text = self._stop.push(self._detokenizer.flush(), counts=self._counts(new))
        return text if self._stop.found is not None else text + self._stop.flush()

    def _finished(self, reason: Finish, *, stop: str | None = None) -> api.GenerateEvent:
        usage = api.Usage(
            prompt_tokens=len(self._request.prompt),
            cached_prompt_tokens=self.cached,
            completion_tokens=self.sent,
        )
        finished = api.Finished(reason=finish_name(reason), usage=usage, index=self.index)
        if stop is not None:
            finished.stop = stop
        elif reason is Finish.STOP and self._end_token is not None:
            finished.stop_token_id = self._end_token
        return api.GenerateEvent(finished=finished)
