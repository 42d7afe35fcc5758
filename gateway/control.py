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
from gateway.calls.limits import AdmissionLimit
from gateway.calls.refusal import Context, Refusal, exhausted, refuse, unavailable
from gateway.liveness.group import WorkerGroup
from gateway.liveness.other_models import OtherModels
from gateway.requests.validation import Validator
from gateway.settings import GatewaySettings
from gateway.store.interface import GatewayStore
from gateway.streams.failures import STOPPING
from gateway.telemetry.step_feed import StepFeed


class ControlService(control_pb2_grpc.ControlServicer):
    """Answers from the gateway's settings, the checkpoint, and what the other tiers announce in the store."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        validator: Validator,
        store: GatewayStore,
        group: WorkerGroup,
        other_models: OtherModels,
        steps: StepFeed,
        limit: AdmissionLimit,
    ) -> None:
        """``limit``: of calls of ``WatchSteps``."""
        self._settings = settings
        self._validator = validator
        self._store = store
        self._group = group
        self._other_models = other_models
        self._steps = steps
        self._limit = limit

    async def GetServerInfo(
        self, request: control.GetServerInfoRequest, context: Context
    ) -> control.ServerInfo:
        return control.ServerInfo(
            version=__version__,
            api="albireo.v1",
            models=[self._settings.model_name],
            other_models=[] if self._group.info is not None else await self._other_models.names(),
            max_message_bytes=self._settings.max_message_mib << 20,
            max_deadline_seconds=self._settings.max_deadline_seconds,
            max_queue=self._settings.max_queue,
        )

    async def GetModelInfo(self, request: control.GetModelInfoRequest, context: Context) -> control.ModelInfo:
        try:
            self._validator.check_model(request.model)
            group = self._group.info
            if group is None:
                raise await self._other_models.refusal("no worker group is alive")
        except Refusal as refusal:
            await refuse(context, refusal)
        return control.ModelInfo(
            model=self._settings.model_name,
            architecture=group.architecture,
            vocab_size=group.vocab_size,
            max_model_len=group.max_model_len,
            eos_token_ids=group.eos_token_ids,
            chat=self._validator.accepts_chats,
            dtype=group.dtype,
            tp=group.tp,
            device=group.device,
            default_sampling=self._validator.sampling_defaults,
        )

    async def GetLoad(self, request: control.GetLoadRequest, context: Context) -> control.Load:
        try:
            self._validator.check_model(request.model)
            group = self._group.info
            data, gpus = await self._store.load(group.tp if group is not None else 0)
            if data is None:
                raise await self._other_models.refusal("no scheduler is alive")
            load = control.Load.FromString(data)
            load.gpus.extend(control.Gpu.FromString(gpu) for gpu in gpus)
        except Refusal as refusal:
            await refuse(context, refusal)
        except RedisError as error:
            await refuse(context, unavailable(describe(error)))
        except DecodeError as error:
            await refuse(context, unavailable(f"the published load cannot be read: {error}"))
        return load

    async def GetStepStats(self, request: control.GetStepStatsRequest, context: Context) -> control.StepStats:
        try:
            self._validator.check_model(request.model)
        except Refusal as refusal:
            await refuse(context, refusal)
        return self._steps.stats.message(simulated=self._group.simulated)

    async def WatchSteps(
        self, request: control.WatchStepsRequest, context: Context
    ) -> AsyncIterator[control.StepRecord]:
        try:
            self._validator.check_model(request.model)
            with self._limit.admit():
                async for record in self._steps.watch():
                    yield record
            raise STOPPING.refusal()
        except Refusal as refusal:
            await refuse(context, refusal)
        except OverflowError as error:
            await refuse(context, exhausted(str(error)))
