"""What a rank tells of itself, as metrics, and of its GPU to the gateways."""

from __future__ import annotations

import time

from redis.exceptions import RedisError

from albireo.contract.keys import Keys
from albireo.store.interface import Store
from albireo.telemetry import Telemetry
from albireo.telemetry import catalogue as metrics
from albireo.v1 import control_pb2 as control
from worker_svc.stages.renewal import StepWatch
from worker_svc.stages.step import Runner
from worker_svc.telemetry.gpu import GpuReader

GPU_TTL_SECONDS = 5.0


class WorkerMeters:
    """The lease renewal thread calls ``report`` about twice a second; the step itself is not touched."""

    def __init__(
        self,
        telemetry: Telemetry,
        runner: Runner,
        watch: StepWatch,
        store: Store,
        keys: Keys,
        gpu: GpuReader | None,
        rank: int,
    ) -> None:
        """``gpu``: None where the rank computes without one."""
        self._wanted = telemetry.metered
        self._store = store
        self._keys = keys
        self._gpu = gpu
        self._rank = rank
        self._reading = control.Gpu()
        self._round_trip = telemetry.folded(metrics.REDIS_ROUND_TRIP)
        telemetry.observe(metrics.WORKER_STEPS, lambda: watch.ended)
        telemetry.observe(metrics.STEP_AGE, watch.seconds)
        telemetry.observe(metrics.WORKER_KV_BLOCKS, lambda: runner.shape.num_blocks)
        telemetry.observe(metrics.WORKER_KV_MEMORY, lambda: runner.kv_bytes)
        if gpu is not None:
            self._reading = gpu.read()
            telemetry.observe(metrics.STAGING_WAIT, lambda: runner.staging_wait)
            telemetry.observe(metrics.GPU_UTILIZATION, lambda: self._told("utilization"))
            telemetry.observe(metrics.GPU_POWER, lambda: self._told("watts"))
            telemetry.observe(metrics.GPU_ENERGY, lambda: self._told("joules"))

    def report(self) -> None:
        """Reads the GPU and tells what it reads; without one, sees how far away Redis is, if that is wanted.

        A Redis that does not answer is for the stages to notice.
        """
        if self._gpu is not None:
            self._reading = self._gpu.read()
        elif not self._wanted:
            return
        try:
            began = time.perf_counter()
            if self._gpu is None:
                self._store.ping()
            else:
                self._announce()
            self._round_trip.add(time.perf_counter() - began)
        except RedisError:
            pass  # a figure less; whoever needs Redis says that it is gone

    def _announce(self) -> None:
        reading = self._reading.SerializeToString()
        self._store.announce(self._keys.gpu(self._rank), reading, ttl=GPU_TTL_SECONDS, retry=False)

    def _told(self, name: str) -> float | None:
        reading = self._reading
        value: float | None = getattr(reading, name) if reading.HasField(name) else None
        return value
