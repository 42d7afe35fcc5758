"""The ``Inference`` service: validates requests, submits them, streams their answers.

gRPC calls its methods, through the interceptor, on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator

import grpc
from redis.exceptions import RedisError

from albireo.contract.bounds import IDENTIFIER
from albireo.contract.plan import Finish, branch_seed
from albireo.store.redis_errors import describe
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from gateway.calls.callers import current_caller
from gateway.calls.limits import AdmissionLimit
from gateway.calls.refusal import Context, Refusal, refuse, unavailable, unsupported
from gateway.calls.work import WorkThreads
from gateway.liveness.model_names import ModelNames
from gateway.liveness.served_model import ServedModel
from gateway.requests.inbox_writer import InboxWriter
from gateway.requests.submission import Submitter, digest_of
from gateway.requests.validation import Validator, ValidRequest, record_id_of
from gateway.streams.failures import STOPPING
from gateway.streams.router import Router
from gateway.streams.stream import TokenStream
from gateway.telemetry.call_record import CallRecorder
from gateway.text.detokenizer import Vocabulary


class InferenceService(inference_pb2_grpc.InferenceServicer):
    """Its only state is the open streams."""

    def __init__(
        self,
        *,
        validator: Validator,
        work: WorkThreads,
        submitter: Submitter,
        writer: InboxWriter,
        router: Router,
        model: ServedModel,
        names: ModelNames,
        vocabulary: Vocabulary,
        recorder: CallRecorder,
        limit: AdmissionLimit,
        max_deadline: float,
        sink: bool,
    ) -> None:
        """``limit``: of calls of ``Generate``. ``max_deadline``: longest time of any request, in seconds.
        ``sink``: send no tokens, for measurements."""
        self._validator = validator
        self._work = work
        self._submitter = submitter
        self._writer = writer
        self._router = router
        self._model = model
        self._names = names
        self._vocabulary = vocabulary
        self._recorder = recorder
        self._limit = limit
        self._max_deadline = max_deadline
        self._sink = sink
        self._stopping = False
        self._failed_at_stop: list[TokenStream] = []
        self._closed: weakref.WeakSet[TokenStream] = weakref.WeakSet()

    async def Generate(
        self, request: api.GenerateRequest, context: Context
    ) -> AsyncIterator[api.GenerateEvent]:
        remaining = context.time_remaining()
        seconds = self._max_deadline if remaining is None else min(remaining, self._max_deadline)
        with self._recorder.call(request, context) as record, contextlib.ExitStack() as admitted:
            try:
                admitted.enter_context(self._limit.admit())
                stream, accepted = await self._accept(request, seconds, record.traceparent)
            except Refusal as refusal:
                record.refused(refusal)
                await refuse(context, refusal)
            record.accepted(stream)
            # grpc itself ends the call at the client's deadline; this is for ours. A timer, because a timeout
            # around the loop would also cancel grpc's wait for a slow client, which would get no status.
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
                # Also if the client disconnects: grpc cancels this coroutine, or closes the generator.
                self._router.remove(stream)
                self._close_stream(stream)

    async def Cancel(self, request: api.CancelRequest, context: Context) -> api.CancelResponse:
        try:
            if not IDENTIFIER.fullmatch(request.request_id):
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "request_id: not a request id")
            record_id = record_id_of(current_caller().scope, request.request_id)
            return api.CancelResponse(found=await self._submitter.cancel_known(record_id))
        except Refusal as refusal:
            await refuse(context, refusal)
        except RedisError as error:
            await refuse(context, unavailable(describe(error)))

    async def Tokenize(self, request: api.TokenizeRequest, context: Context) -> api.TokenizeResponse:
        try:
            await self._names.check(request.model)
            model = self._model.info
            max_model_len = model.max_model_len if model is not None else None
            return await self._work.run(
                request.ByteSize(), lambda: self._validator.tokenize(request, max_model_len)
            )
        except Refusal as refusal:
            await refuse(context, refusal)

    async def Detokenize(self, request: api.DetokenizeRequest, context: Context) -> api.DetokenizeResponse:
        try:
            await self._names.check(request.model)
            return await self._work.run(request.ByteSize(), lambda: self._validator.detokenize(request))
        except Refusal as refusal:
            await refuse(context, refusal)

    def fail_streams(self) -> None:
        """Ends the open streams, and those that are accepted later, with a retryable error."""
        self._stopping = True
        for stream in self._router.unfinished():
            self._fail_at_stop(stream)

    async def close(self) -> None:
        """After ``fail_streams``: cancels the requests of those streams, and waits for all writes."""
        for stream in self._failed_at_stop:
            self._close_stream(stream)  # its call was ended by the server, and may do this too late
        await self._writer.close()

    async def _accept(
        self, request: api.GenerateRequest, seconds: float, traceparent: str
    ) -> tuple[TokenStream, api.Accepted]:
        """Validates and submits a request that may run for ``seconds``. Raises Refusal."""
        valid, digest = await self._validate(request)
        name = self._submitter.new_name(valid.request_id)
        stream = TokenStream(valid, self._vocabulary, self._writer.cancel, name)
        try:
            self._router.register(stream)
        except KeyError:
            raise Refusal(
                grpc.StatusCode.ALREADY_EXISTS, f"request_id: {valid.request_id!r} is streaming here"
            ) from None
        try:
            epoch = await self._writer.submit(valid, name, digest, seconds, traceparent)
        except BaseException:
            self._router.remove(stream)
            raise
        self._router.bind(stream, epoch)
        if self._stopping:
            self._fail_at_stop(stream)
        return stream, api.Accepted(
            request_id=valid.request_id,
            prompt_tokens=len(valid.prompt),
            seed=valid.sampling.seed,
            simulated=self._model.simulated,
            branch_seeds=[branch_seed(valid.sampling.seed, branch) for branch in range(valid.n)],
        )

    async def _validate(self, request: api.GenerateRequest) -> tuple[ValidRequest, str]:
        """The request as it is submitted, and its digest. Raises Refusal."""
        caller = current_caller()
        caller.fill_in(request)
        await self._names.check(request.model)
        model = self._model.info
        if model is None:
            raise await self._names.missing("no worker group has joined")
        if self._model.mismatch:  # a retry cannot succeed before an operator corrects it
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, self._model.mismatch)
        max_model_len, eos_ids = model.max_model_len, model.eos_token_ids

        def checked() -> tuple[ValidRequest, str]:
            valid = self._validator.generate(request, max_model_len, eos_ids, caller.scope)
            return valid, digest_of(request)

        valid, digest = await self._work.run(request.ByteSize(), checked)
        if self._model.simulated:
            for name in ("logprobs", "prompt_logprobs"):
                if getattr(valid.sampling, name) >= 0:
                    raise unsupported(f"sampling.{name}", "the simulated device has no probabilities")
        return valid, digest

    def _fail_at_stop(self, stream: TokenStream) -> None:
        stream.fail(STOPPING)
        self._failed_at_stop.append(stream)

    def _close_stream(self, stream: TokenStream) -> None:
        """Cancels the request if it may still run, and records its end. Idempotent."""
        if stream in self._closed:
            return
        self._closed.add(stream)
        if not stream.ended or (stream.failure is not None and stream.epoch == self._router.epoch):
            self._writer.cancel(stream.name)
        if stream.epoch is not None:
            self._writer.note_end(stream.request.record_id, stream.name)
