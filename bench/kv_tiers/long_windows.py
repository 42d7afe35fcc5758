"""Windows of time in which other streams decode: alone, while a long prompt is computed, while it decodes."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import numpy as np

from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc, inference_pb2_grpc
from bench.kv_tiers.long_request import TIMEOUT_SECONDS, LongRequest
from bench.kv_tiers.others import other_streams, tokens_between
from bench.streams import Received, receive

PHASES = "alone", "during a long prompt", "during its decoding"
OTHER_PROMPT = 32
START_SECONDS = 300.0
"""Until a long request is where a window can begin."""


class Summary(NamedTuple):
    """Seconds."""

    tpot: float  # median over streams and windows of the mean time from one token to the next
    gap: float  # median time from one message with tokens to the next
    long_gap: float  # 99 % are shorter
    longest: float


class Windows:
    """What the other streams received in each window, by phase."""

    def __init__(
        self,
        stub: inference_pb2_grpc.InferenceStub,
        load: control_pb2_grpc.ControlStub,
        vocab_size: int,
        *,
        others: int,
        device: int,
    ) -> None:
        """``device``: tokens that it has memory for; half of it is for the ``others``."""
        self._stub = stub
        self._load = load
        self._vocab_size = vocab_size
        self._others = others
        self._outputs = device // 2 // others - OTHER_PROMPT
        self._gaps: dict[str, list[list[tuple[float, int]]]] = defaultdict(list)  # of streams: with tokens
        self.streamed: dict[str, int] = defaultdict(int)  # bytes that rank 0 read for streamed slots
        self._read = 0  # of these, in all
        self.long_tokens = 0  # of long requests, in the windows in which they decode
        self.long_seconds = 0.0  # of these

    async def measure(self, known: LongRequest, *, rounds: int, seconds: float) -> None:
        """``known``: its prompt is in the tier. Raises RuntimeError where a stream fails or a phase does not
        begin, or is over before the window."""
        streams = other_streams(
            self._stub, self._others, self._vocab_size, prompt=OTHER_PROMPT, outputs=self._outputs
        )
        async with streams as others, self._watched():
            for number in range(1, rounds + 1):
                await self._window(PHASES[0], others, seconds)
                prompt = LongRequest(number, self._vocab_size, known.prompt, known.outputs)
                async with self._meanwhile(prompt, f"prompt{number}") as received:
                    await self._streamed(lambda count: count > 0)
                    await self._window(PHASES[1], others, seconds)
                    _expect(not received.arrivals, "the prompt was over before the window")
                await self._window(PHASES[0], others, seconds)
                async with self._meanwhile(known, f"decoding{number}") as received:
                    await _until(lambda: bool(received.arrivals), "a first token")
                    begin, end = await self._window(PHASES[2], others, seconds)
                    self.long_tokens += tokens_between([received], begin, end)
                    self.long_seconds += end - begin
                    _expect(not received.ended, "the long request ended before the window")

    def summary(self, phase: str) -> Summary:
        streams = [np.array(gaps) for gaps in self._gaps[phase]]
        tpot = [float(gaps[:, 0].sum() / gaps[:, 1].sum()) for gaps in streams]
        every = np.concatenate([gaps[:, 0] for gaps in streams])
        return Summary(float(np.median(tpot)), *np.percentile(every, [50, 99, 100]).tolist())

    async def _window(self, phase: str, others: Sequence[Received], seconds: float) -> tuple[float, float]:
        """Returns its begin and end."""
        begin, read = time.monotonic(), self._read
        await asyncio.sleep(seconds)
        end = time.monotonic()
        self.streamed[phase] += self._read - read
        gaps: dict[int, list[tuple[float, int]]] = defaultdict(list)
        for one in others:
            for (at, gap), count in zip(one.gaps, one.counts[1:], strict=True):
                if at >= begin:
                    gaps[one.number].append((gap, count))
        _expect(len(gaps) == self._others, "a stream got no token in a window")
        self._gaps[phase] += gaps.values()
        return begin, end

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Counts what steps read for streamed slots. Raises ExceptionGroup where they cannot be watched."""

        async def watch() -> None:
            async for record in self._load.WatchSteps(control.WatchStepsRequest()):
                self._read += sum(copy.bytes for copy in record.timing.transfers if copy.streamed)

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch())
            yield
            watching.cancel()

    @asynccontextmanager
    async def _meanwhile(self, request: LongRequest, name: str) -> AsyncIterator[Received]:
        """The request runs; it is cancelled when the block is left, and gone when this is."""
        received = Received(request.number, name)
        running = asyncio.create_task(receive(self._stub, request.message(), received, TIMEOUT_SECONDS))
        try:
            yield received
            _expect(not received.error, f"{name}: {received.error}")
        finally:
            running.cancel()
            await asyncio.wait([running])
        await self._streamed(lambda count: count == 0)

    async def _streamed(self, fits: Callable[[int], bool]) -> None:
        """Until the number of streamed requests is as wanted."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            load = await self._load.GetLoad(control.GetLoadRequest(), timeout=10)
            if fits(sum(group.streamed for group in load.groups)):
                return
            _expect(time.monotonic() < deadline, "no request came to be streamed, or one still is")
            await asyncio.sleep(0.2)


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        _expect(time.monotonic() < deadline, f"{what} did not come in {START_SECONDS:.0f} s")
        await asyncio.sleep(0.05)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)
