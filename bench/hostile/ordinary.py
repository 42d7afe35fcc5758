"""Well-behaved clients: they stream all the time, and record the gaps between messages."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import grpc
import numpy as np

from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc

TOKENS = 200
BEFORE_OTHERS = -20
"""Priority of their requests, before all others: waiting in the scheduler's queue is not what is measured."""


class OrdinaryClients:
    """``count`` streams, each followed by the next, as long as the context lasts."""

    def __init__(self, target: str, count: int) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._stub = inference_pb2_grpc.InferenceStub(self._channel)
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self.phase = "start"
        self.gaps: defaultdict[str, list[float]] = defaultdict(list)  # seconds, by phase
        self.failures: defaultdict[str, list[str]] = defaultdict(list)
        self.streams = 0  # that have ended without an error

    async def __aenter__(self) -> OrdinaryClients:
        self._tasks = [asyncio.create_task(self._stream()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    def p99(self, phase: str) -> float:
        """99th percentile of the gaps between messages, in seconds."""
        return float(np.percentile(self.gaps[phase], 99))

    async def _stream(self) -> None:
        options = api.SamplingOptions(max_tokens=TOKENS, ignore_eos=True)
        request = api.GenerateRequest(text="Tell me a story.", sampling=options, priority=BEFORE_OTHERS)
        while True:
            try:
                last = None
                async for event in self._stub.Generate(request, timeout=60):
                    if event.HasField("tokens"):
                        now = time.perf_counter()
                        if last is not None:
                            self.gaps[self.phase].append(now - last)
                        last = now
                    elif event.HasField("error"):
                        self.failures[self.phase].append(event.error.message)
                self.streams += 1
            except grpc.aio.AioRpcError as error:
                self.failures[self.phase].append(f"{error.code().name}: {error.details()}")
                await asyncio.sleep(0.25)
