"""The ``Control`` service: what this server serves, its load, and the times of its steps.

gRPC calls its methods, through the interceptor, on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from google.protobuf.message import DecodeError
from redis.exceptions import RedisError

from albireo import __version__
from albireo.store.redis_errors import describe
from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc
from gateway.calls.callers import current_caller
from gateway.calls.limits import AdmissionLimit
from gateway.calls.refusal import Context, Refusal, exhausted, refuse, unavailable
from gateway.liveness.model_names import ModelNames
from gateway.liveness.served_model import ServedModel
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
        model: ServedModel,
        names: ModelNames,
        steps: StepFeed,
        limit: AdmissionLimit,
    ) -> None:
        """``limit``: of calls of ``WatchSteps``."""
        self._settings = settings
        self._validator = validator
        self._store = store
        self._model = model
        self._names = names
        self._steps = steps
        self._limit = limit

    async def GetServerInfo(
        self, request: control.GetServerInfoRequest, context: Context
    ) -> control.ServerInfo:
        return control.ServerInfo(
            version=__version__,
            api="albireo.v1",
            models=[self._settings.model_name],
            other_models=[] if self._model.info is not None else await self._names.others(),
            max_message_bytes=self._settings.max_message_mib << 20,
            max_deadline_seconds=self._settings.max_deadline_seconds,
            max_queue=self._settings.max_queue,
        )

    async def GetModelInfo(self, request: control.GetModelInfoRequest, context: Context) -> control.ModelInfo:
        try:
            await self._names.check(request.model)
            model = self._model.info
            if model is None:
                raise await self._names.missing("no worker group has joined")
        except Refusal as refusal:
            await refuse(context, refusal)
        return control.ModelInfo(
            model=self._settings.model_name,
            architecture=model.architecture,
            vocab_size=model.vocab_size,
            max_model_len=model.max_model_len,
            eos_token_ids=model.eos_token_ids,
            chat=self._validator.accepts_chats,
            dtype=model.dtype,
            tp=model.tp,
            device=model.device,
            default_sampling=self._validator.sampling_defaults,
        )

    async def GetLoad(self, request: control.GetLoadRequest, context: Context) -> control.Load:
        try:
            await self._names.check(request.model)
            data = await self._store.load()
            if data is None:
                raise await self._names.missing("no scheduler is alive")
            load = control.Load.FromString(data)
            load.gpus.extend(await self._gpus(load.groups))
            current_caller().keep_own(load.waiting_by_tenant)
        except Refusal as refusal:
            await refuse(context, refusal)
        except RedisError as error:
            await refuse(context, unavailable(describe(error)))
        except DecodeError as error:
            await refuse(context, unavailable(f"the published load cannot be read: {error}"))
        return load

    async def _gpus(self, groups: Iterable[control.GroupLoad]) -> list[control.Gpu]:
        """Those of all ranks of these groups that announce one. Raises RedisError and DecodeError."""
        ranks = [(group, rank) for group in groups for rank in range(group.tp)]
        found = await self._store.gpus([(group.incarnation, rank) for group, rank in ranks])
        gpus = []
        for (group, _), data in zip(ranks, found, strict=True):
            if data is not None:
                gpu = control.Gpu.FromString(data)
                gpu.group = group.name
                gpus.append(gpu)
        return gpus

    async def GetStepStats(self, request: control.GetStepStatsRequest, context: Context) -> control.StepStats:
        try:
            await self._names.check(request.model)
        except Refusal as refusal:
            await refuse(context, refusal)
        return self._steps.stats.message(simulated=self._model.simulated)

    async def WatchSteps(
        self, request: control.WatchStepsRequest, context: Context
    ) -> AsyncIterator[control.StepRecord]:
        try:
            await self._names.check(request.model)
            with self._limit.admit():
                async for record in self._steps.watch():
                    yield record
            raise STOPPING.refusal()
        except Refusal as refusal:
            await refuse(context, refusal)
        except OverflowError as error:
            await refuse(context, exhausted(str(error)))
