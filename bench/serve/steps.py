"""Collects the record of every step while a load runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc

Result = TypeVar("Result")


async def with_steps(
    target: str, load: Coroutine[Any, Any, Result]
) -> tuple[Result, list[control.StepRecord]]:
    """What ``load`` returns, and the steps that the gateway saw while it ran."""
    steps: list[control.StepRecord] = []
    async with grpc.aio.insecure_channel(target) as channel:
        call = control_pb2_grpc.ControlStub(channel).WatchSteps(control.WatchStepsRequest())

        async def collect() -> None:
            async for record in call:
                steps.append(record)  # noqa: PERF401  (what has come must be kept when the call ends)

        watching = asyncio.create_task(collect())
        result = await load
        call.cancel()
        await asyncio.wait([watching], timeout=5)
    return result, steps
