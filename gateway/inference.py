"""The ``Inference`` service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message
from redis.exceptions import RedisError

from albireo.plan import Finish, branch_seed
from albireo.redis_errors import describe
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from gateway.branch import Failure
from gateway.detokenizer import Vocabulary
from gateway.follower import Follower
from gateway.observation import Observer
from gateway.places import Places
from gateway.refusal import Refusal, unavailable, unsupported
from gateway.stream import TokenStream
from gateway.submission import Submitter, digest_of, name_of
from gateway.validation import REQUEST_ID, Validator

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Checked = TypeVar("Checked")

LARGE_BYTES = 16_384
"""A smaller request is tokenized faster than a thread could be asked to."""


class InferenceService(inference_pb2_grpc.InferenceServicer):
    """Validates, submits, streams. Holds nothing but the streams that are open."""

    def __init__(
        self,
        validator: Validator,
        submitter: Submitter,
        follower: Follower,
        vocabulary: Vocabulary,
        observer: Observer,
        places: Places,
        *,
        max_deadline: float,
        sink: bool,
    ) -> None:
        """``max_deadline``: most seconds of any request. ``sink``: send no tokens, to measure without."""
        self._validator = validator
        self._submitter = submitter
        self._follower = follower
        self._vocabulary = vocabulary
        self._observer = observer
        self._places = places
        self._max_deadline = max_deadline
        self._sink = sink
        self._writes: set[asyncio.Task[None]] = set()
        self._left: weakref.WeakSet[TokenStream] = weakref.WeakSet()

    async def Generate(
        self, request: api.GenerateRequest, context: Context
    ) -> AsyncIterator[api.GenerateEvent]:
        remaining = context.time_remaining()
        seconds = self._max_deadline if remaining is None else min(remaining, self._max_deadline)
        with self._observer.call(request, context) as observed, contextlib.ExitStack() as held:
            try:
                held.enter_context(self._places.one())
                stream, accepted = await self._accept(request, seconds, observed.traceparent)
            except Refusal as refusal:
                observed.refused(refusal)
                await refuse(context, refusal)
            observed.accepted(stream)
            # grpc itself ends the call at the client's deadline; this is for ours. A timer, because a timeout
            # around the loop would also cancel grpc's wait for a slow client, who would never get a status.
            timer = asyncio.get_running_loop().call_later(self._max_deadline, stream.end, Finish.DEADLINE)
            try:
                yield api.GenerateEvent(accepted=accepted)
                async for event in stream.events():
                    if not (self._sink and event.HasField("tokens")):
                        yield event
            finally:
                timer.cancel()
                # Also when the client goes away: grpc cancels this coroutine, or closes the generator.
                self._follower.remove(stream)
                self._leave(stream)

    async def Cancel(self, request: api.CancelRequest, context: Context) -> api.CancelResponse:
        try:
            if not REQUEST_ID.fullmatch(request.request_id):
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "request_id: not a request id")
            return api.CancelResponse(found=await self._submitter.cancel_known(request.request_id))
        except Refusal as refusal:
            await refuse(context, refusal)
        except RedisError as error:
            await refuse(context, unavailable(describe(error)))

    async def Tokenize(self, request: api.TokenizeRequest, context: Context) -> api.TokenizeResponse:
        try:
            return api.TokenizeResponse(ids=await _checked(self._validator.tokenize, request))
        except Refusal as refusal:
            await refuse(context, refusal)

    async def Detokenize(self, request: api.DetokenizeRequest, context: Context) -> api.DetokenizeResponse:
        try:
            return api.DetokenizeResponse(text=await _checked(self._validator.detokenize, request))
        except Refusal as refusal:
            await refuse(context, refusal)

    async def close(self) -> None:
        """Cancels what still streams, and waits until all that is to be written has been."""
        for stream in self._follower.unfinished():
            # Its call, cut by the server, may end too late to do this itself.
            stream.fail(Failure(grpc.StatusCode.UNAVAILABLE, "the gateway stops", retryable=True))
            self._leave(stream)
        if self._writes:
            await asyncio.wait(self._writes, timeout=5)

    async def _accept(
        self, request: api.GenerateRequest, seconds: float, traceparent: str
    ) -> tuple[TokenStream, api.Accepted]:
        group = self._follower.group
        if group is None:
            raise unavailable("no worker group is alive")
        valid = await _checked(self._validator.generate, request, group.max_model_len, group.eos_token_ids)
        if self._follower.simulated:
            for name in ("logprobs", "prompt_logprobs"):
                if getattr(valid.sampling, name) >= 0:
                    raise unsupported(f"sampling.{name}", "the simulated device has no probabilities")
        stream = TokenStream(valid, self._vocabulary, self._cancel_soon, name_of(valid.request_id))
        try:
            self._follower.register(stream)
        except KeyError:
            raise Refusal(
                grpc.StatusCode.ALREADY_EXISTS, f"request_id: {valid.request_id!r} is streaming here"
            ) from None
        try:
            epoch = await self._submitter.submit(valid, stream.name, digest_of(request), seconds, traceparent)
        except Refusal:
            self._follower.remove(stream)
            raise
        except BaseException as error:
            # The client or Redis left while the script ran: it may have been accepted.
            self._follower.remove(stream)
            self._write_soon(self._submitter.withdraw(valid.request_id, stream.name))
            if isinstance(error, RedisError):
                raise unavailable(describe(error)) from error
            raise
        self._follower.bind(stream, epoch)
        return stream, api.Accepted(
            request_id=valid.request_id,
            prompt_tokens=len(valid.prompt),
            seed=valid.sampling.seed,
            simulated=self._follower.simulated,
            branch_seeds=[branch_seed(valid.sampling.seed, branch) for branch in range(valid.n)],
        )

    def _leave(self, stream: TokenStream) -> None:
        """Nobody reads the stream any more. Does something once."""
        if stream in self._left:
            return
        self._left.add(stream)
        if not stream.over or (stream.failure is not None and stream.epoch == self._follower.epoch):
            self._cancel_soon(stream.name)
        if stream.epoch is not None:
            self._write_soon(self._submitter.note_end(stream.request.request_id, stream.name))

    def _cancel_soon(self, name: str) -> None:
        """Cancels a request or one branch; should that fail, its deadline ends it in the scheduler."""
        self._write_soon(self._submitter.cancel(name))

    def _write_soon(self, write: Coroutine[Any, Any, None]) -> None:
        """Writes in a task of its own: the caller may be about to end, or cancelled itself."""
        task = asyncio.create_task(_written(write))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)


async def _written(write: Coroutine[Any, Any, None]) -> None:
    try:
        await write
    except RedisError as error:
        logger.warning("could not write the end of a request: %s", describe(error))


async def _checked(check: Callable[..., Checked], request: Message, *arguments: Any) -> Checked:
    """``check(request, ...)``; that of a large request runs in a thread, so that streams go on meanwhile."""
    if request.ByteSize() < LARGE_BYTES:
        return check(request, *arguments)
    return await asyncio.to_thread(check, request, *arguments)


async def refuse(context: Context, refusal: Refusal) -> NoReturn:
    """Ends the call with the refusal's status."""
    if refusal.retry_ms is not None:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", str(refusal.retry_ms)),))
    await context.abort(refusal.code, refusal.message)
    raise AssertionError("abort returned")
