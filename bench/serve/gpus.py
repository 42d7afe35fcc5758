"""Power and utilization of the worker groups' GPUs during a load, sampled through ``Control.GetLoad``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from albireo.runtime.access import ANYONE, Access
from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc

SAMPLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """All GPUs of all groups at one moment."""

    at: float  # seconds on one clock
    gpus: Sequence[control.Gpu]


@asynccontextmanager
async def watched_gpus(target: str, access: Access = ANYONE) -> AsyncIterator[list[Sample]]:
    """Samples at enter, every second, and at leave; empty where no group has a GPU."""
    samples: list[Sample] = []
    async with access.async_channel(target) as channel:
        stub = control_pb2_grpc.ControlStub(channel)

        async def sample_once() -> bool:
            try:
                load = await stub.GetLoad(control.GetLoadRequest(), timeout=5, metadata=access.metadata)
            except grpc.aio.AioRpcError:
                return True  # the requests of the load report the error
            samples.append(Sample(time.perf_counter(), load.gpus))
            return bool(load.gpus)

        async def watch() -> None:
            while await sample_once():
                await asyncio.sleep(SAMPLE_SECONDS)

        watching = asyncio.create_task(watch())
        try:
            yield samples
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await sample_once()


def summarize_gpus(samples: Sequence[Sample], seconds: float, output_tokens: int) -> dict[str, Any]:
    """Of a run of ``seconds``: mean utilization (0 to 1), mean watts of all GPUs together, joules a token.

    Power is the energy counters' growth over time where every GPU has one, else the mean of the readings.
    Includes other work on the GPUs, and their power when idle. Empty where there is no GPU.
    """
    with_gpus = [sample for sample in samples if sample.gpus]
    if not with_gpus:
        return {}
    used = [gpu.utilization for sample in with_gpus for gpu in sample.gpus if gpu.HasField("utilization")]
    watts = _metered(with_gpus[0], with_gpus[-1]) or _read(with_gpus)
    found: dict[str, Any] = {"gpus": max(len(sample.gpus) for sample in with_gpus)}
    if used:
        found["utilization"] = sum(used) / len(used)
    if watts is not None:
        found["watts"] = watts
        if output_tokens:
            found["joules_per_output_token"] = watts * seconds / output_tokens
    return found


def _metered(first: Sample, last: Sample) -> float | None:
    """Mean watts by the energy counters; None where a GPU has none."""
    before = {(gpu.group, gpu.rank): gpu.joules for gpu in first.gpus if gpu.HasField("joules")}
    after = {(gpu.group, gpu.rank): gpu.joules for gpu in last.gpus if gpu.HasField("joules")}
    seconds = last.at - first.at
    if not seconds or len(before) < len(first.gpus) or before.keys() != after.keys():
        return None
    return sum(after[gpu] - before[gpu] for gpu in before) / seconds


def _read(samples: Sequence[Sample]) -> float | None:
    """Mean watts by the readings of power; None where no sample has one of every GPU."""
    totals = [
        sum(gpu.watts for gpu in sample.gpus)
        for sample in samples
        if all(gpu.HasField("watts") for gpu in sample.gpus)
    ]
    return sum(totals) / len(totals) if totals else None
