"""The ``Inference`` service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
from redis.exceptions import RedisError

from albireo.plan import Finish
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from gateway.detokenizer import Vocabulary
from gateway.follower import Follower
from gateway.refusal import Refusal, unavailable
from gateway.stream import TokenStream
from gateway.submission import Submitter, digest_of
from gateway.validation import REQUEST_ID, Validator

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService(inference_pb2_grpc.InferenceServicer):
    """Validates, submits, streams. Holds nothing but the streams that are open."""

    def __init__(
        self,
        validator: Validator,
        submitter: Submitter,
        follower: Follower,
        vocabulary: Vocabulary,
        *,
        max_deadline: float,
    ) -> None:
        """``max_deadline``: most seconds of any request."""
        self._validator = validator
        self._submitter = submitter
        self._follower = follower
        self._vocabulary = vocabulary
        self._max_deadline = max_deadline
        self._cancellations: set[asyncio.Task[None]] = set()

    async def Generate(
        self, request: api.GenerateRequest, context: Context
    ) -> AsyncIterator[api.GenerateEvent]:
        remaining = context.time_remaining()
        clients_own = remaining is not None and remaining < self._max_deadline
        seconds = remaining if clients_own and remaining is not None else self._max_deadline
        try:
            stream, accepted = await self._accept(request, seconds)
        except Refusal as refusal:
            await refuse(context, refusal)
        try:
            yield api.GenerateEvent(accepted=accepted)
            try:
                async with asyncio.timeout(seconds):
                    async for event in stream.events():
                        yield event
            except TimeoutError:
                if clients_own:
                    await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the client's deadline has passed")
                stream.end(Finish.DEADLINE)
                async for event in stream.events():
                    yield event
        finally:
            # Also when the client goes away: grpc cancels this coroutine, or closes the generator.
            self._follower.remove(stream)
            if stream.stopped_early or not stream.over:
                self._cancel_soon(stream.request.request_id)

    async def Cancel(self, request: api.CancelRequest, context: Context) -> api.CancelResponse:
        try:
            if not REQUEST_ID.fullmatch(request.request_id):
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "request_id: not a request id")
            found = await self._submitter.known(request.request_id)
            if found:
                await self._submitter.cancel(request.request_id)
            return api.CancelResponse(found=found)
        except Refusal as refusal:
            await refuse(context, refusal)
        except RedisError as error:
            await refuse(context, unavailable(f"Redis: {error}"))

    async def Tokenize(self, request: api.TokenizeRequest, context: Context) -> api.TokenizeResponse:
        try:
            return api.TokenizeResponse(ids=self._validator.tokenize(request))
        except Refusal as refusal:
            await refuse(context, refusal)

    async def Detokenize(self, request: api.DetokenizeRequest, context: Context) -> api.DetokenizeResponse:
        try:
            return api.DetokenizeResponse(text=self._validator.detokenize(request))
        except Refusal as refusal:
            await refuse(context, refusal)

    async def close(self) -> None:
        """Waits until every cancellation under way has been written."""
        if self._cancellations:
            await asyncio.wait(self._cancellations, timeout=5)

    async def _accept(self, request: api.GenerateRequest, seconds: float) -> tuple[TokenStream, api.Accepted]:
        if self._follower.group is None:
            raise unavailable("no worker group is alive")
        valid = self._validator.generate(request, self._follower.group.max_model_len)
        stream = TokenStream(valid, self._vocabulary)
        try:
            self._follower.register(stream)
        except KeyError:
            raise Refusal(
                grpc.StatusCode.ALREADY_EXISTS, f"request_id: {valid.request_id!r} is streaming here"
            ) from None
        try:
            epoch = await self._submitter.submit(valid, digest_of(request), seconds)
        except asyncio.CancelledError:
            # The client left while the script ran: it may have been accepted.
            self._follower.remove(stream)
            self._cancel_soon(valid.request_id)
            raise
        except Refusal:
            self._follower.remove(stream)
            raise
        self._follower.bind(stream, epoch)
        return stream, api.Accepted(
            request_id=valid.request_id, prompt_tokens=len(valid.prompt), seed=valid.sampling.seed
        )

    def _cancel_soon(self, request_id: str) -> None:
        """Cancels in a task of its own: the caller may be about to end, or cancelled itself."""
        task = asyncio.create_task(self._cancel(request_id))
        self._cancellations.add(task)
        task.add_done_callback(self._cancellations.discard)

    async def _cancel(self, request_id: str) -> None:
        try:
            await self._submitter.cancel(request_id)
        except RedisError as error:
            # Its deadline ends the request in the scheduler.
            logger.warning("could not cancel %s: %s", request_id, error)


async def refuse(context: Context, refusal: Refusal) -> NoReturn:
    """Ends the call with the refusal's status."""
    if refusal.retry_ms is not None:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", str(refusal.retry_ms)),))
    await context.abort(refusal.code, refusal.message)
    raise AssertionError("abort returned")
