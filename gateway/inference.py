"""The ``Inference`` service: validates requests, submits them, streams their answers.

gRPC calls its methods, through the interceptor, on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from gateway.models.backend import Backend
from gateway.models.model import Model
from gateway.models.models import Models
from gateway.requests.submission import digest_of
from gateway.requests.validation import ValidRequest, record_id_of
from gateway.telemetry.call_record import CallRecorder


class InferenceService(inference_pb2_grpc.InferenceServicer):
    """It has no state: the models have the open streams."""

    def __init__(
        self,
        models: Models,
        *,
        work: WorkThreads,
        recorder: CallRecorder,
        limit: AdmissionLimit,
        max_deadline: float,
        sink: bool,
    ) -> None:
        """``limit``: of calls of ``Generate``. ``max_deadline``: longest time of any request, in seconds.
        ``sink``: send no tokens, for measurements."""
        self._models = models
        self._work = work
        self._recorder = recorder
        self._limit = limit
        self._max_deadline = max_deadline
        self._sink = sink

    async def Generate(
        self, request: api.GenerateRequest, context: Context
    ) -> AsyncIterator[api.GenerateEvent]:
        remaining = context.time_remaining()
        seconds = self._max_deadline if remaining is None else min(remaining, self._max_deadline)
        known = self._models.find(request.model)
        name = known.name if known is not None else ""
        with self._recorder.call(request, context, name) as record, contextlib.ExitStack() as admitted:
            try:
                admitted.enter_context(self._limit.admit())
                model = self._models.get(request.model)
                backend, valid, digest = await self._validate(model, request)
                stream = await backend.streams.accept(valid, digest, seconds, record.traceparent)
            except Refusal as refusal:
                record.refused(refusal)
                await refuse(context, refusal)
            record.accepted(stream)
            # grpc itself ends the call at the client's deadline; this is for ours. A timer, because a timeout
            # around the loop would also cancel grpc's wait for a slow client, which would get no status.
            timer = asyncio.get_running_loop().call_later(self._max_deadline, stream.finish, Finish.DEADLINE)
            try:
                yield api.GenerateEvent(accepted=_accepted(valid, simulated=backend.served.simulated))
                async for event in stream.events():
                    if not (self._sink and event.HasField("tokens")):
                        yield event
                if stream.final_failure is not None:
                    await refuse(context, stream.final_failure.refusal())
            finally:
                timer.cancel()
                # Also if the client disconnects: grpc cancels this coroutine, or closes the generator.
                backend.streams.close(stream)

    async def Cancel(self, request: api.CancelRequest, context: Context) -> api.CancelResponse:
        try:
            if not IDENTIFIER.fullmatch(request.request_id):
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "request_id: not a request id")
            record_id = record_id_of(current_caller().scope, request.request_id)
            return api.CancelResponse(found=await self._models.get(request.model).cancel(record_id))
        except Refusal as refusal:
            await refuse(context, refusal)
        except RedisError as error:
            await refuse(context, unavailable(describe(error)))

    async def Tokenize(self, request: api.TokenizeRequest, context: Context) -> api.TokenizeResponse:
        try:
            model = self._models.get(request.model)
            max_model_len = model.info.max_model_len if model.info is not None else None
            validator = model.checkpoint.validator
            return await self._work.run(
                request.ByteSize(), lambda: validator.tokenize(request, max_model_len)
            )
        except Refusal as refusal:
            await refuse(context, refusal)

    async def Detokenize(self, request: api.DetokenizeRequest, context: Context) -> api.DetokenizeResponse:
        try:
            validator = self._models.get(request.model).checkpoint.validator
            return await self._work.run(request.ByteSize(), lambda: validator.detokenize(request))
        except Refusal as refusal:
            await refuse(context, refusal)

    async def _validate(
        self, model: Model, request: api.GenerateRequest
    ) -> tuple[Backend, ValidRequest, str]:
        """Where a request goes, the request as it is submitted, and its digest. Raises Refusal."""
        caller = current_caller()
        caller.fill_in(request)
        own_id = IDENTIFIER.fullmatch(request.request_id)
        backend = model.backend_for(record_id_of(caller.scope, request.request_id) if own_id else "")
        served = backend.served
        if served.info is None:
            raise self._models.missing(model, "no worker group has joined")
        if served.mismatch:  # a retry cannot succeed before an operator corrects it
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, served.mismatch)
        max_model_len, eos_ids = served.info.max_model_len, served.info.eos_token_ids

        def checked() -> tuple[ValidRequest, str]:
            valid = model.checkpoint.validator.generate(request, max_model_len, eos_ids, caller.scope)
            return valid, digest_of(request)

        valid, digest = await self._work.run(request.ByteSize(), checked)
        if served.simulated:
            for name in ("logprobs", "prompt_logprobs"):
                if getattr(valid.sampling, name) >= 0:
                    raise unsupported(f"sampling.{name}", "the simulated device has no probabilities")
        backend.load.sent(valid.n)
        return backend, valid, digest


def _accepted(request: ValidRequest, *, simulated: bool) -> api.Accepted:
    seed = request.sampling.seed
    return api.Accepted(
        request_id=request.request_id,
        prompt_tokens=len(request.prompt),
        seed=seed,
        simulated=simulated,
        branch_seeds=[branch_seed(seed, branch) for branch in range(request.n)],
    )
