"""The open streams of one backend, from the submission of their requests to the record of their ends.

The ``Inference`` service uses it, on the event loop.
"""

from __future__ import annotations

import weakref

import grpc

from gateway.calls.refusal import Refusal
from gateway.requests.inbox_writer import InboxWriter
from gateway.requests.submission import Submitter
from gateway.requests.validation import ValidRequest
from gateway.streams.failures import Failure
from gateway.streams.router import Router
from gateway.streams.stream import TokenStream
from gateway.text.detokenizer import Vocabulary


class OpenStreams:
    """Joins the router, which gives a stream its rows, and the writer, which submits and cancels."""

    def __init__(
        self, router: Router, submitter: Submitter, writer: InboxWriter, vocabulary: Vocabulary
    ) -> None:
        self._router = router
        self._submitter = submitter
        self._writer = writer
        self._vocabulary = vocabulary
        self._failure: Failure | None = None  # of all streams, from ``fail`` on
        self._failed_at_stop: list[TokenStream] = []
        self._closed: weakref.WeakSet[TokenStream] = weakref.WeakSet()

    async def accept(
        self, request: ValidRequest, digest: str, seconds: float, traceparent: str
    ) -> TokenStream:
        """Submits a request that may run for ``seconds``; ``close`` must follow. Raises Refusal."""
        if self._failure is not None:
            raise self._failure.refusal()
        name = self._submitter.new_name(request.request_id)
        stream = TokenStream(request, self._vocabulary, self._writer.cancel, name)
        try:
            self._router.register(stream)
        except KeyError:
            raise Refusal(
                grpc.StatusCode.ALREADY_EXISTS, f"request_id: {request.request_id!r} is streaming here"
            ) from None
        try:
            epoch = await self._writer.submit(request, name, digest, seconds, traceparent)
        except BaseException:
            self._router.remove(stream)
            raise
        self._router.bind(stream, epoch)
        if self._failure is not None:
            self._fail(stream, self._failure)
        return stream

    def close(self, stream: TokenStream) -> None:
        """The call has ended: cancels the request if it may still run, and records its end. Idempotent."""
        self._router.remove(stream)
        if stream in self._closed:
            return
        self._closed.add(stream)
        if not stream.ended or (stream.failure is not None and stream.epoch == self._router.epoch):
            self._writer.cancel(stream.name)
        if stream.epoch is not None:
            self._writer.note_end(stream.request.record_id, stream.name)

    def fail(self, failure: Failure) -> None:
        """Ends the open streams; no more are accepted."""
        self._failure = failure
        for stream in self._router.unfinished():
            self._fail(stream, failure)

    async def finish(self) -> None:
        """After ``fail``: cancels the requests of those streams, and waits for all writes."""
        for stream in self._failed_at_stop:
            self.close(stream)  # its call was ended by the server, and may do this too late
        await self._writer.close()

    def _fail(self, stream: TokenStream, failure: Failure) -> None:
        stream.fail(failure)
        self._failed_at_stop.append(stream)
