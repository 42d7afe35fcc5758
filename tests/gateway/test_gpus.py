"""What ranks announce of their GPUs, through a gateway."""

from __future__ import annotations

import asyncio

import pytest

from albireo.v1 import control_pb2 as control
from bench.serve.gpus import watched_gpus
from tests.gateway.conftest import Served, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_gpus_are_in_the_load_by_group_and_rank_and_can_be_watched(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.serve.gpus.SAMPLE_SECONDS", 0.02)
    redis, keys = served.backend.redis, served.backend.keys
    redis.set(keys.load, control.Load(epoch=1).SerializeToString())
    target = f"127.0.0.1:{served.gateway.port}"
    async with watched_gpus(target) as none:
        await eventually(lambda: len(none) == 1)
        await asyncio.sleep(0.05)  # two more would come
    assert [len(sample.gpus) for sample in none] == [0, 0]  # at the begin and at the end
    groups = [
        control.GroupLoad(name="fast", incarnation="w", tp=2),
        control.GroupLoad(name="cpu", incarnation="x", tp=1),
        control.GroupLoad(name="slow", incarnation="y", tp=1),
    ]
    redis.set(keys.load, control.Load(epoch=1, groups=groups).SerializeToString())
    for group, rank in (("w", 0), ("w", 1), ("y", 0), ("gone", 0)):
        gpu = control.Gpu(rank=rank, watts=100 + rank, joules=5.0)
        redis.set(keys.gpu(group, rank), gpu.SerializeToString())
    load = await served.control.GetLoad(control.GetLoadRequest(), timeout=5)
    assert [(gpu.group, gpu.rank, gpu.watts, gpu.HasField("utilization")) for gpu in load.gpus] == [
        ("fast", 0, 100, False),
        ("fast", 1, 101, False),
        ("slow", 0, 100, False),
    ]
    async with watched_gpus(target) as samples:
        await eventually(lambda: len(samples) >= 2)
        seen = len(samples)
    assert len(samples) == seen + 1  # one at the end
    assert [gpu.joules for gpu in samples[-1].gpus] == [5.0, 5.0, 5.0]
    redis.delete(keys.gpu("w", 0))  # as when it expires; the other ranks announce theirs
    load = await served.control.GetLoad(control.GetLoadRequest(), timeout=5)
    assert [(gpu.group, gpu.rank) for gpu in load.gpus] == [("fast", 1), ("slow", 0)]
