"""One of the ``n`` answers to a request: rows of results in, events for the client out.

The router puts rows in, the stream takes events out; both on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from operator import attrgetter

from albireo.contract.codec import finish_name
from albireo.contract.plan import Finish
from albireo.v1 import inference_pb2 as api
from gateway.requests.validation import ValidRequest
from gateway.streams.failures import NOT_DRAWN, Failure
from gateway.streams.messages import parsed, tokens_that_fit
from gateway.streams.streamed_pace import StreamedPace
from gateway.text.detokenizer import Detokenizer, Vocabulary
from gateway.text.stop_strings import StopStringMatcher

Row = tuple[int, bytes | None, int]
"""A row that has arrived: its token, its encoded log-probabilities, its finish."""


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """What a branch had when it was given a slot."""

    position: int  # in the answer, of the next token
    num_cached: int  # tokens whose keys and values need not be computed


class Branch:
    """What has arrived for one answer and has not been sent yet.

    ``admit``, ``push``, ``finish`` and ``close`` put in and wake the stream; what follows the first end is
    ignored. Rows and ends carry their position in the answer, since several groups may compute it in turn:
    their results are read in any order. ``pop_events`` takes out. All pending tokens go into one message, so
    a slow reader gets fewer and larger ones; the request's max_tokens bounds them, and the early rows.
    """

    def __init__(
        self, request: ValidRequest, index: int, vocabulary: Vocabulary, wake: asyncio.Event
    ) -> None:
        self.index = index
        self._request = request
        self._wake = wake
        self._received = 0  # tokens
        self._early: dict[int, Row] = {}  # by position: those before them have not arrived
        self._last: tuple[int, Finish | Failure] | None = None  # how it ends after so many tokens
        self._ids: list[int] = []
        self._logprobs: list[bytes] = []  # encoded
        self._final: Finish | Failure | None = None
        self._closed = False
        self._admissions: list[Admission] = []  # but those whose cached tokens did not come
        self.admitted = False  # it has had a slot
        self.sent = 0  # tokens
        self.streamed = StreamedPace()
        self.first_at = self.last_at = 0.0  # monotonic seconds at which tokens were sent; 0: none yet
        self._vocabulary = vocabulary
        self._detokenizer = Detokenizer(vocabulary, request.prompt)
        self._stop = StopStringMatcher(request.stops, include=request.include_stop)
        self._end_token: int | None = None  # the end or stop token that was drawn
        self.delivered = False  # its last event has been taken out
        self.stopped_early = False  # by a stop string, while the scheduler still runs it

    @property
    def ended(self) -> bool:
        """Whether it is known how it ends; its last events may be pending."""
        return self._final is not None or self._closed or self.delivered

    @property
    def outcome(self) -> Finish | Failure | None:
        """How it ended; None if it has not, or if the whole stream failed."""
        return self._final if self._stop.found is None else Finish.STOP

    @property
    def cached(self) -> int:
        """Tokens of the prompt whose keys and values were cached: those of the first admission, whatever the
        order in which they are read. Later ones count what the branch has computed itself."""
        return min(self._admissions, key=attrgetter("position")).num_cached if self._admissions else 0

    @property
    def has_pending(self) -> bool:
        """Whether there are tokens to take out."""
        return bool(self._ids)

    def admit(self, position: int, num_cached: int) -> Admission:
        """The scheduler gave it a slot, to go on from ``position``."""
        admission = Admission(position, num_cached)
        self._admissions.append(admission)
        self.admitted = True
        return admission

    def unfetched(self, admission: Admission) -> None:
        """KV that counted as cached did not come from its tier: nothing was computed with that admission."""
        if admission in self._admissions:
            self._admissions.remove(admission)

    def push(self, position: int, token: int, logprobs: api.TokenLogprobs | None, finish: int) -> bool:
        """One row, the ``position``-th of the answer. One that has been received before is dropped, one that
        is early waits for those before it. Returns whether it brings a token."""
        if self.ended or position < self._received or position in self._early:
            return False
        row = token, None if logprobs is None else logprobs.SerializeToString(), finish
        if position > self._received:
            self._early[position] = row
        else:
            self._take(*row)
            while self._received in self._early and not self.ended:
                self._take(*self._early.pop(self._received))
            self._wake.set()
        return finish != Finish.ERROR

    def finish(self, outcome: Finish | Failure, *, after: int = 0) -> None:
        """Ends it for a reason other than a token, such as a cancellation or a deadline, once it has received
        ``after`` tokens. Idempotent."""
        if self.ended:
            return
        if after > self._received:
            self._last = after, outcome
        else:
            self._final = outcome
            self._wake.set()

    def close(self) -> None:
        """The whole stream fails: further rows are ignored, pending tokens are sent without a last event."""
        self._closed = True

    def pop_events(self) -> list[api.GenerateEvent]:
        """Takes out as many pending tokens as fit into one message, and the last event if none remain.

        To be called again while ``has_pending``.
        """
        count = tokens_that_fit(self._logprobs, self._vocabulary.longest_text)
        ids, self._ids = self._ids[:count], self._ids[count:]
        logprobs, self._logprobs = self._logprobs[:count], self._logprobs[count:]
        final = None if self._ids else self._final
        text = self._text(ids)
        if self.ended and not self._ids and self._stop.found is None:
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
            self._ids.clear()  # no token follows a stop string
            events.append(self._finished(Finish.STOP, stop=self._stop.found))
        elif isinstance(final, Failure):
            events.append(final.event(self.index if self._request.n > 1 else None))
        elif final is not None:
            events.append(self._finished(final))
        self.delivered = final is not None or self._stop.found is not None
        return events

    def _take(self, token: int, logprobs: bytes | None, finish: int) -> None:
        """The next row."""
        if finish == Finish.ERROR:  # such a row carries no token
            self._final = NOT_DRAWN
            return
        self._received += 1
        self._ids.append(token)
        if logprobs is not None:
            self._logprobs.append(logprobs)
        if finish:
            self._final = Finish(finish)
            if finish == Finish.STOP:
                self._end_token = token
        elif self._last is not None and self._last[0] == self._received:
            self._final = self._last[1]

    def _text(self, ids: list[int]) -> str:
        """Text of new ids. ``ids`` is cut after the one that completes a stop string."""
        last = ids and not self._ids  # whether the last token of all is among them
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
        """Whether the last token has no text: the model's end token, or a stop token not to be included."""
        wanted = self._request.include_stop and self._end_token in self._request.sampling.stop_ids
        return self._end_token is not None and not wanted

    def _counts(self, new: int) -> bool:
        """Whether a stop string may end with the ``new``-th unsent token: not within min_tokens."""
        return self.sent + new > self._request.sampling.min_tokens

    def _rest(self, new: int) -> str:
        """The text that was withheld, at the end, after ``new`` unsent tokens."""
        text = self._stop.push(self._detokenizer.flush(), counts=self._counts(new))
        return text if self._stop.found is not None else text + self._stop.flush()

    def _finished(self, reason: Finish, *, stop: str | None = None) -> api.GenerateEvent:
        behind = self._received - self.sent  # tokens that came after a stop string
        usage = api.Usage(
            prompt_tokens=len(self._request.prompt),
            cached_prompt_tokens=self.cached,
            completion_tokens=self.sent,
            streamed_tokens=max(0, self.streamed.tokens - behind),
            streamed_token_seconds=self.streamed.token_seconds,
        )
        finished = api.Finished(reason=finish_name(reason), usage=usage, index=self.index)
        if stop is not None:
            finished.stop = stop
        elif reason is Finish.STOP and self._end_token is not None:
            finished.stop_token_id = self._end_token
        return api.GenerateEvent(finished=finished)
