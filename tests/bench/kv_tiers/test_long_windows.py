"""Windows of streams that decode while a long request runs."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from albireo.v1 import control_pb2_grpc, inference_pb2_grpc
from bench.kv_tiers.long_windows import PHASES, Windows
from bench.streams import Received


def test_a_window_counts_gaps_that_began_in_it_and_each_stream_alone() -> None:
    async def measure() -> Windows:
        async with grpc.aio.insecure_channel("localhost:1") as channel:
            stub, load = inference_pb2_grpc.InferenceStub(channel), control_pb2_grpc.ControlStub(channel)
            windows = Windows(stub, load, 256, others=2, device=512)
            begin = time.monotonic()
            times = [begin - 2, begin + 1, begin + 2, begin + 4]
            first = Received(0, "a", arrivals=times, counts=[1, 1, 1, 2])
            second = Received(1, "b", arrivals=[at + 0.01 for at in times], counts=[1, 1, 1, 1])
            await windows._window(PHASES[0], [first, second], 0.0)
            return windows

    found = asyncio.run(measure()).summary(PHASES[0])
    assert found.tpot == pytest.approx((3 / 3 + 3 / 2) / 2)
    assert found.gap == pytest.approx(1.5)
    assert found.longest == pytest.approx(2)
