"""What the GPUs of the worker group did during a load run, as the ranks' drivers tell it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc

SAMPLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """All GPUs of the group at one moment."""

    at: float  # seconds on one clock
    gpus: Sequence[control.Gpu]


@asynccontextmanager
async def watched_gpus(target: str) -> AsyncIterator[list[Sample]]:
    """Samples, one a second from enter to leave, also at both; none where the group has no GPU."""
    samples: list[Sample] = []
    async with grpc.aio.insecure_channel(target) as channel:
        stub = control_pb2_grpc.ControlStub(channel)

        async def look() -> bool:
            try:
                load = await stub.GetLoad(control.GetLoadRequest(), timeout=5)
            except grpc.aio.AioRpcError:
                return True  # the load's own requests tell what is wrong
            samples.append(Sample(time.perf_counter(), load.gpus))
            return bool(load.gpus)

        async def watch() -> None:
            while await look():
                await asyncio.sleep(SAMPLE_SECONDS)

        watching = asyncio.create_task(watch())
        try:
            yield samples
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await look()


def summarize_gpus(samples: Sequence[Sample], seconds: float, output_tokens: int) -> dict[str, Any]:
    """Of a run of ``seconds``: mean utilization (0 to 1), mean watts of all GPUs together, joules a token.

    Power is the energy counters' growth over time where every GPU has one, else the mean of the readings.
    What else ran on the GPUs is in it, and what they draw at rest. Empty where there is no GPU.
    """
    told = [sample for sample in samples if sample.gpus]
    if not told:
        return {}
    used = [gpu.utilization for sample in told for gpu in sample.gpus if gpu.HasField("utilization")]
    watts = _metered(told[0], told[-1]) or _read(told)
    found: dict[str, Any] = {"gpus": max(len(sample.gpus) for sample in told)}
    if used:
        found["utilization"] = sum(used) / len(used)
    if watts is not None:
        found["watts"] = watts
        if output_tokens:
            found["joules_per_output_token"] = watts * seconds / output_tokens
    return found


def _metered(first: Sample, last: Sample) -> float | None:
    before = {gpu.rank: gpu.joules for gpu in first.gpus if gpu.HasField("joules")}
    after = {gpu.rank: gpu.joules for gpu in last.gpus if gpu.HasField("joules")}
    seconds = last.at - first.at
    if not seconds or len(before) < len(first.gpus) or before.keys() != after.keys():
        return None
    return sum(after[rank] - before[rank] for rank in before) / seconds


def _read(samples: Sequence[Sample]) -> float | None:
    totals = [
        sum(gpu.watts for gpu in sample.gpus)
        for sample in samples
        if all(gpu.HasField("watts") for gpu in sample.gpus)
    ]
    return sum(totals) / len(totals) if totals else None
