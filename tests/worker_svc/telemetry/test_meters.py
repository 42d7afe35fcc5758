"""Metrics of a rank, and the readings of its GPU in Redis, against a real Redis."""

from __future__ import annotations

import pytest
import torch

from albireo.contract.keys import Keys
from albireo.models import TINY
from albireo.runtime.clock import SYSTEM_CLOCK
from albireo.store.connection import connect
from albireo.store.redis_store import RedisStore
from albireo.telemetry import OFF, Telemetry, catalogue, tier_metrics
from albireo.v1 import control_pb2 as control
from tests.albireo.telemetry.kept import KeptTelemetry
from worker_svc.cost.fixed import FixedCost, StepTimes
from worker_svc.runner.simulated_runner import SimulatedRunner
from worker_svc.stages.step_watch import StepWatch
from worker_svc.telemetry.gpu import GpuReader
from worker_svc.telemetry.meters import GPU_TTL_SECONDS, WorkerMeters

KEYS = Keys("tiny")
GPU_KEY = KEYS.gpu("incarnation", 3)
KV_MEMORY = 4 << 20


def meters(telemetry: Telemetry, url: str, watch: StepWatch, gpu: GpuReader | None = None) -> WorkerMeters:
    runner = SimulatedRunner(
        TINY,
        FixedCost(StepTimes.load("fast-5ms"), 1),
        rank=0,
        kv_memory=KV_MEMORY,
        max_seqs=4,
        max_model_len=256,
    )
    return WorkerMeters(telemetry, runner, watch, RedisStore.open(url, KEYS), gpu, GPU_KEY)


def test_a_rank_without_a_gpu(redis_url: str) -> None:
    assert GpuReader.of(torch.device("cpu"), 0) is None
    telemetry, watch = KeptTelemetry(), StepWatch(SYSTEM_CLOCK)
    found = meters(telemetry, redis_url, watch)
    for _ in range(2):
        found.report()
    watch.begin(1)
    watch.end()
    watch.begin(2)
    assert telemetry.counted(catalogue.REDIS_ROUND_TRIP) == 2
    assert telemetry.values(catalogue.WORKER_STEPS)[()] == 1
    assert 0 < telemetry.values(catalogue.STEP_AGE)[()] < 5
    blocks = telemetry.values(catalogue.WORKER_KV_BLOCKS)[()]
    memory = telemetry.values(catalogue.WORKER_KV_MEMORY)[()]
    assert 0.9 * KV_MEMORY < memory <= KV_MEMORY
    assert memory % blocks == 0
    assert telemetry.values(tier_metrics.WORKER_KV_FAILURES) == telemetry.values(catalogue.GPU_POWER) == {}
    assert not connect(redis_url).exists(GPU_KEY)


def test_failures_of_kv_tiers_are_exported_by_tier_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = {("disk", "late"): 3, ("host", "full"): 1}
    monkeypatch.setattr(SimulatedRunner, "tier_failures", failures)
    telemetry = KeptTelemetry()
    meters(telemetry, "redis://127.0.0.1:1", StepWatch(SYSTEM_CLOCK))
    assert telemetry.values(tier_metrics.WORKER_KV_FAILURES) == failures


def test_a_gpu_that_cannot_be_read_is_reported_by_its_rank(redis_url: str) -> None:
    telemetry, unreadable = KeptTelemetry(), GpuReader(None, 3)  # no NVML: every call is an error
    meters(telemetry, redis_url, StepWatch(SYSTEM_CLOCK), unreadable).report()
    client = connect(redis_url)
    assert client.get(GPU_KEY) == control.Gpu(rank=3).SerializeToString()
    assert 0 < client.pttl(GPU_KEY) <= GPU_TTL_SECONDS * 1000
    assert telemetry.values(catalogue.GPU_ENERGY) == {}
    assert telemetry.values(catalogue.STAGING_WAIT) == {(): 0}


def test_without_metrics_redis_is_not_asked() -> None:
    meters(OFF, "redis://127.0.0.1:1", StepWatch(SYSTEM_CLOCK)).report()


def test_a_redis_that_is_gone_raises_nothing_here() -> None:
    telemetry = KeptTelemetry()
    meters(telemetry, "redis://127.0.0.1:1", StepWatch(SYSTEM_CLOCK)).report()
    assert telemetry.counted(catalogue.REDIS_ROUND_TRIP) == 0


@pytest.mark.parametrize("reads", [1, 3])
def test_steps_are_counted_where_they_end(reads: int) -> None:
    watch = StepWatch(SYSTEM_CLOCK)
    for step in range(reads):
        watch.begin(7 + step)
        watch.end()
    assert (watch.begun, watch.ended, watch.seconds()) == (reads, reads, 0)
    assert watch.step == 6 + reads
