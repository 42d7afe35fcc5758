"""The ``Control`` service: what this server serves, its load, and the times of its steps.

gRPC calls its methods, through the interceptor, on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError
from redis.exceptions import RedisError

from albireo import __version__
from albireo.store.redis_errors import describe
from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc
from gateway.calls.callers import current_caller
from gateway.calls.limits import AdmissionLimit
from gateway.calls.refusal import Context, Refusal, exhausted, refuse, unavailable
from gateway.models.models import Models
from gateway.settings import GatewaySettings
from gateway.streams.failures import GONE, STOPPING


class ControlService(control_pb2_grpc.ControlServicer):
    """Answers from the gateway's settings, the checkpoint, and what the other tiers announce in the store."""

    def __init__(
        self,
        settings: GatewaySettings,
        models: Models,
        limit: AdmissionLimit,
    ) -> None:
        """``limit``: of calls of ``WatchSteps``."""
        self._settings = settings
        self._models = models
        self._limit = limit

    async def GetServerInfo(
        self, request: control.GetServerInfoRequest, context: Context
    ) -> control.ServerInfo:
        return control.ServerInfo(
            version=__version__,
            api="albireo.v1",
            models=self._models.names,
            other_models=self._models.others,
            max_message_bytes=self._settings.max_message_mib << 20,
            max_deadline_seconds=self._settings.max_deadline_seconds,
            max_queue=self._settings.max_queue,
        )

    async def GetModelInfo(self, request: control.GetModelInfoRequest, context: Context) -> control.ModelInfo:
        try:
            model = self._models.get(request.model)
            info = model.info
            if info is None:
                raise self._models.missing(model, "no worker group has joined")
        except Refusal as refusal:
            await refuse(context, refusal)
        validator = model.checkpoint.validator
        return control.ModelInfo(
            model=model.name,
            architecture=info.architecture,
            vocab_size=info.vocab_size,
            max_model_len=info.max_model_len,
            eos_token_ids=info.eos_token_ids,
            chat=validator.accepts_chats,
            dtype=info.dtype,
            tp=info.tp,
            device=info.device,
            default_sampling=validator.sampling_defaults,
        )

    async def GetLoad(self, request: control.GetLoadRequest, context: Context) -> control.Load:
        try:
            model = self._models.get(request.model)
            load = await model.load()
            if load is None:
                raise self._models.missing(model, "no scheduler is alive")
            current_caller().keep_own(load.waiting_by_tenant)
        except Refusal as refusal:
            await refuse(context, refusal)
        except RedisError as error:
            await refuse(context, unavailable(describe(error)))
        except DecodeError as error:
            await refuse(context, unavailable(f"the published load cannot be read: {error}"))
        return load

    async def GetStepStats(self, request: control.GetStepStatsRequest, context: Context) -> control.StepStats:
        try:
            model = self._models.get(request.model)
        except Refusal as refusal:
            await refuse(context, refusal)
        return model.steps.stats.message(simulated=model.simulated)

    async def WatchSteps(
        self, request: control.WatchStepsRequest, context: Context
    ) -> AsyncIterator[control.StepRecord]:
        try:
            steps = self._models.get(request.model).steps
            with self._limit.admit():
                async for record in steps.watch():
                    yield record
            known = self._models.find(request.model) is not None
            raise (STOPPING if known else GONE).refusal()
        except Refusal as refusal:
            await refuse(context, refusal)
        except OverflowError as error:
            await refuse(context, exhausted(str(error)))
