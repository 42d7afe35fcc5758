"""Metrics of a rank, and the readings of its GPU for the gateways.

The thread that renews the group's lease calls :meth:`WorkerMeters.report`.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from redis.exceptions import RedisError

from albireo.store.interface import Store
from albireo.telemetry import Telemetry, tier_metrics
from albireo.telemetry import catalogue as metrics
from albireo.v1 import control_pb2 as control
from worker_svc.runner.interface import Runner
from worker_svc.telemetry.gpu import GpuReader

GPU_TTL_SECONDS = 5.0


class Steps(Protocol):
    """Progress of the steps that the stages run."""

    ended: int  # in all

    def seconds(self) -> float:
        """Age of the oldest step that runs, 0 where none does."""
        ...


class WorkerMeters:
    """The lease renewal thread calls ``report`` about twice a second; no step waits for it."""

    def __init__(
        self,
        telemetry: Telemetry,
        runner: Runner[Any],
        steps: Steps,
        store: Store,
        gpu: GpuReader | None,
        gpu_key: str,
    ) -> None:
        """``gpu``: None where the rank computes without one. ``gpu_key``: for its readings."""
        self._wanted = telemetry.metered
        self._store = store
        self._gpu = gpu
        self._gpu_key = gpu_key
        self._reading = control.Gpu()
        self._round_trip = telemetry.folded(metrics.REDIS_ROUND_TRIP)
        telemetry.observe(metrics.WORKER_STEPS, lambda: steps.ended)
        telemetry.observe(metrics.STEP_AGE, steps.seconds)
        telemetry.observe(metrics.WORKER_KV_BLOCKS, lambda: runner.shape.num_blocks)
        telemetry.observe(metrics.WORKER_KV_MEMORY, lambda: runner.kv_bytes)
        telemetry.observe(tier_metrics.WORKER_KV_FAILURES, lambda: runner.tier_failures)
        if gpu is not None:
            self._reading = gpu.read()
            telemetry.observe(metrics.STAGING_WAIT, lambda: runner.staging_wait)
            telemetry.observe(metrics.GPU_UTILIZATION, lambda: self._reported("utilization"))
            telemetry.observe(metrics.GPU_POWER, lambda: self._reported("watts"))
            telemetry.observe(metrics.GPU_ENERGY, lambda: self._reported("joules"))

    def report(self) -> None:
        """Reads the GPU and publishes the reading; without a GPU and with metrics on, times a call to Redis.

        Ignores errors of Redis: the stages notice them.
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
            pass  # one reading is missing; the stages report that Redis is gone

    def _announce(self) -> None:
        reading = self._reading.SerializeToString()
        self._store.announce(self._gpu_key, reading, ttl=GPU_TTL_SECONDS, retry=False)

    def _reported(self, name: str) -> float | None:
        reading = self._reading
        value: float | None = getattr(reading, name) if reading.HasField(name) else None
        return value
