"""The ``Inference`` service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc
from redis.exceptions import RedisError

from albireo.contract.bounds import IDENTIFIER
from albireo.contract.plan import Finish, branch_seed
from albireo.store.redis_errors import describe
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from gateway.calls.limits import AdmissionLimit, QueuedLimit
from gateway.calls.refusal import Context, Refusal, refuse, unavailable, unsupported
from gateway.calls.work import WorkThreads
from gateway.liveness.group import WorkerGroup
from gateway.liveness.other_models import OtherModels
from gateway.requests.submission import Submitter, digest_of
from gateway.requests.validation import Validator, ValidRequest
from gateway.streams.failures import STOPPING
from gateway.streams.router import Router
from gateway.streams.stream import TokenStream
from gateway.telemetry.call_record import CallRecorder
from gateway.text.detokenizer import Vocabulary

logger = logging.getLogger(__name__)

MAX_SUBMITTING = MAX_ENDING = 24
"""Submissions at once, and writes of requests' ends: together fewer than there are connections to Redis."""
SUBMISSION_SECONDS = 5.0
"""Most that a submission waits for its turn. Until it comes, a call that its client cancels costs nothing."""
ENDING_SECONDS = 30.0
"""Most that the end of a request waits to be written; where it is not, the request runs to its deadline."""


class InferenceService(inference_pb2_grpc.InferenceServicer):
    """Validates, submits, streams. Holds nothing but the streams that are open."""

    def __init__(
        self,
        validator: Validator,
        submitter: Submitter,
        router: Router,
        group: WorkerGroup,
        vocabulary: Vocabulary,
        recorder: CallRecorder,
        limit: AdmissionLimit,
        work: WorkThreads,
        hits: Counter[str],
        other_models: OtherModels,
        *,
        max_deadline: float,
        sink: bool,
    ) -> None:
        """``hits`` counts, by bound, the calls that it ended. ``max_deadline``: most seconds of any request.
        ``sink``: send no tokens, to measure without."""
        self._validator = validator
        self._submitter = submitter
        self._router = router
        self._group = group
        self._vocabulary = vocabulary
        self._recorder = recorder
        self._limit = limit
        slow = "Redis is slow"
        self._submissions = QueuedLimit(MAX_SUBMITTING, SUBMISSION_SECONDS, "submission_seconds", slow, hits)
        self._endings = QueuedLimit(MAX_ENDING, ENDING_SECONDS, "ending_seconds", slow, hits)
        self._work = work
        self._other_models = other_models
        self._max_deadline = max_deadline
        self._sink = sink
        self._stopping = False
        self._cut: list[TokenStream] = []
        self._writes: set[asyncio.Task[None]] = set()
        self._left: weakref.WeakSet[TokenStream] = weakref.WeakSet()

    async def Generate(
        self, request: api.GenerateRequest, context: Context
    ) -> AsyncIterator[api.GenerateEvent]:
        remaining = context.time_remaining()
        seconds = self._max_deadline if remaining is None else min(remaining, self._max_deadline)
        with self._recorder.call(request, context) as record, contextlib.ExitStack() as held:
            try:
                held.enter_context(self._limit.admit())
                stream, accepted = await self._accept(request, seconds, record.traceparent)
            except Refusal as refusal:
                record.refused(refusal)
                await refuse(context, refusal)
            record.accepted(stream)
            # grpc itself ends the call at the client's deadline; this is for ours. A timer, because a timeout
            # around the loop would also cancel grpc's wait for a slow client, who would never get a status.
            timer = asyncio.get_running_loop().call_later(self._max_deadline, stream.finish, Finish.DEADLINE)
            try:
                yield api.GenerateEvent(accepted=accepted)
                async for event in stream.events():
                    if not (self._sink and event.HasField("tokens")):
                        yield event
                if stream.final_failure is not None:
                    await refuse(context, stream.final_failure.refusal())
            finally:
                timer.cancel()
                # Also when the client goes away: grpc cancels this coroutine, or closes the generator.
                self._router.remove(stream)
                self._leave(stream)

    async def Cancel(self, request: api.CancelRequest, context: Context) -> api.CancelResponse:
        try:
            if not IDENTIFIER.fullmatch(request.request_id):
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "request_id: not a request id")
            return api.CancelResponse(found=await self._submitter.cancel_known(request.request_id))
        except Refusal as refusal:
            await refuse(context, refusal)
        except RedisError as error:
            await refuse(context, unavailable(describe(error)))

    async def Tokenize(self, request: api.TokenizeRequest, context: Context) -> api.TokenizeResponse:
        try:
            group = self._group.info
            max_model_len = group.max_model_len if group is not None else None
            return await self._work.run(
                request.ByteSize(), lambda: self._validator.tokenize(request, max_model_len)
            )
        except Refusal as refusal:
            await refuse(context, refusal)

    async def Detokenize(self, request: api.DetokenizeRequest, context: Context) -> api.DetokenizeResponse:
        try:
            return await self._work.run(request.ByteSize(), lambda: self._validator.detokenize(request))
        except Refusal as refusal:
            await refuse(context, refusal)

    def cut(self) -> None:
        """Ends what still streams, and what is about to, with a retryable error."""
        self._stopping = True
        for stream in self._router.unfinished():
            self._cut_one(stream)

    async def close(self) -> None:
        """After ``cut``: cancels what still streams, and waits until all that is to be written has been."""
        for stream in self._cut:
            self._leave(stream)  # its call, cut by the server, may end too late to do this itself
        if self._writes:
            await asyncio.wait(self._writes, timeout=5)

    async def _accept(
        self, request: api.GenerateRequest, seconds: float, traceparent: str
    ) -> tuple[TokenStream, api.Accepted]:
        group = self._group.info
        if group is None:
            raise unavailable(f"no worker group is alive{await self._other_models.hint()}")
        if self._group.mismatch:  # an operator must act before a retry can help
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, self._group.mismatch)
        max_model_len, eos_ids = group.max_model_len, group.eos_token_ids

        def checked() -> tuple[ValidRequest, str]:
            return self._validator.generate(request, max_model_len, eos_ids), digest_of(request)

        valid, digest = await self._work.run(request.ByteSize(), checked)
        if self._group.simulated:
            for name in ("logprobs", "prompt_logprobs"):
                if getattr(valid.sampling, name) >= 0:
                    raise unsupported(f"sampling.{name}", "the simulated device has no probabilities")
        name = self._submitter.new_name(valid.request_id)
        stream = TokenStream(valid, self._vocabulary, self._cancel_soon, name)
        try:
            self._router.register(stream)
        except KeyError:
            raise Refusal(
                grpc.StatusCode.ALREADY_EXISTS, f"request_id: {valid.request_id!r} is streaming here"
            ) from None
        try:
            epoch = await self._submit(stream, digest, seconds, traceparent)
        except BaseException:
            self._router.remove(stream)
            raise
        self._router.bind(stream, epoch)
        if self._stopping:
            self._cut_one(stream)
        return stream, api.Accepted(
            request_id=valid.request_id,
            prompt_tokens=len(valid.prompt),
            seed=valid.sampling.seed,
            simulated=self._group.simulated,
            branch_seeds=[branch_seed(valid.sampling.seed, branch) for branch in range(valid.n)],
        )

    def _cut_one(self, stream: TokenStream) -> None:
        stream.fail(STOPPING)
        self._cut.append(stream)

    async def _submit(self, stream: TokenStream, digest: str, seconds: float, traceparent: str) -> int:
        """The epoch of the request. Raises Refusal.

        A client that leaves before its turn has cost nothing. After it, the script runs to its end, and what
        it accepted is withdrawn.
        """
        await self._submissions.acquire()
        script = asyncio.create_task(
            self._submitter.submit(stream.request, stream.name, digest, seconds, traceparent)
        )
        script.add_done_callback(lambda _: self._submissions.release())
        try:
            return await asyncio.shield(script)
        except RedisError as error:
            self._write_soon(self._withdraw(stream))  # it may have been accepted
            raise unavailable(describe(error)) from error
        except asyncio.CancelledError:
            self._write_soon(self._take_back(script, stream))
            raise

    async def _take_back(self, script: asyncio.Task[int], stream: TokenStream) -> None:
        """Withdraws what a submission brought, where that is not nothing."""
        with contextlib.suppress(RedisError):
            try:
                await script
            except Refusal:
                return
        await self._withdraw(stream)

    def _withdraw(self, stream: TokenStream) -> Coroutine[Any, Any, None]:
        return self._submitter.withdraw(stream.request.request_id, stream.name)

    def _leave(self, stream: TokenStream) -> None:
        """Nobody reads the stream any more. Does something once."""
        if stream in self._left:
            return
        self._left.add(stream)
        if not stream.ended or (stream.failure is not None and stream.epoch == self._router.epoch):
            self._cancel_soon(stream.name)
        if stream.epoch is not None:
            self._write_soon(self._submitter.note_end(stream.request.request_id, stream.name))

    def _cancel_soon(self, name: str) -> None:
        """Cancels a request or one branch; should that fail, its deadline ends it in the scheduler."""
        self._write_soon(self._submitter.cancel(name))

    def _write_soon(self, write: Coroutine[Any, Any, None]) -> None:
        """Writes in a task of its own: the caller may be about to end, or cancelled itself."""
        task = asyncio.create_task(self._written(write))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _written(self, write: Coroutine[Any, Any, None]) -> None:
        with contextlib.closing(write):
            try:
                await self._endings.acquire()
                try:
                    await write
                finally:
                    self._endings.release()
            except RedisError as error:
                logger.warning("could not write the end of a request: %s", describe(error))
            except Refusal as refusal:
                logger.warning("could not write the end of a request: %s", refusal.message)
