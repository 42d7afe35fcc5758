"""Measures a real group: starts the whole stack, lets it serve the loads, and reads the steps from its logs.

The whole stack and not the ranks alone, since the tiers share the cores with a group on CPUs.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape
from albireo.local.redis_server import LocalRedis
from albireo.local.settings import StackSettings
from albireo.local.stack import Stack
from albireo.planning.calibration.loads import cut, serve
from albireo.planning.calibration.steps import MeasuredStep, StepReader
from albireo.planning.workload import Workload
from albireo.runtime.low_priority import run_at_low_priority
from albireo.store.redis_store import RedisStore
from worker_svc.batch.slot_table import SlotTable
from worker_svc.model.config import ModelConfig
from worker_svc.sampling.layout import SamplingMode, SamplingPolicy

STOP_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """What one group has shown."""

    steps: list[MeasuredStep]
    num_blocks: int  # KV blocks of each rank


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: a model on a device at one TP degree."""

    model: Path
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    max_seqs: int
    tp: int = 1
    sampling: SamplingMode = "auto"
    rounds: int = 1  # how often all loads are served, in an order of its own each time
    stop: threading.Event = field(default_factory=threading.Event)  # ends the measurement once it is set


def measure(
    setting: Setting, loads: Sequence[Workload], on_load: Callable[[Workload], None] = lambda load: None
) -> Measured:
    """Steps of all loads, one after the other, in ``setting.rounds`` rounds: a machine whose speed varies
    would otherwise be slow for some loads and fast for others. The first load only warms up: it is served
    once, and its steps are left out.

    Raises ValueError for invalid options; StackError, GaveUp and RedisServerError where the stack does not
    start; RuntimeError where a request fails, and where ``setting.stop`` is set before the end.
    """
    with tempfile.TemporaryDirectory() as data:
        redis = LocalRedis(Path(data) / "redis")
        try:
            settings = StackSettings.model_validate(
                {
                    "model": setting.model,
                    "model_name": "calibration",
                    "device": setting.device,
                    "dtype": setting.dtype,
                    "tp": setting.tp,
                    "port": 0,
                    "data_dir": data,
                    "redis_url": redis.url,
                }
            )
            environment = {
                "ALBIREO_WORKER_MAX_SEQS": str(setting.max_seqs),
                "ALBIREO_WORKER_SAMPLING": setting.sampling,
            }
            with Stack(settings, environment) as stack:
                if not stack.wait_ready(setting.stop):
                    raise RuntimeError("stopped before the stack served")
                return _serve_all(stack, setting, loads, on_load)
        finally:
            redis.stop()


def _serve_all(
    stack: Stack, setting: Setting, loads: Sequence[Workload], on_load: Callable[[Workload], None]
) -> Measured:
    keys = Keys(stack.settings.model_name)
    store = RedisStore.open(stack.settings.redis_address, keys)
    [group] = stack.groups()
    shape = GroupShape(group.num_blocks, group.max_seqs, group.max_model_len)
    config = ModelConfig.from_dir(setting.model)
    table = SlotTable(shape, config.vocab_size, config.eos_ids, setting.tp)
    policy = SamplingPolicy(setting.sampling, 0, setting.tp)
    reader = StepReader(store, keys, group.incarnation, table, policy)
    steps: list[MeasuredStep] = []
    try:
        for number, load in enumerate(_in_rounds(loads, setting.rounds)):
            on_load(load)
            small = cut(load, group.max_model_len)
            requests = serve(stack.target, small, config.vocab_size, salt=str(number))
            run_at_low_priority(run_unless(setting.stop, requests))
            found = reader.read(load.name)
            steps += found if number else []
    finally:
        store.close()
    return Measured(steps, group.num_blocks)


def _in_rounds(loads: Sequence[Workload], rounds: int) -> Iterator[Workload]:
    """The first load, then the others ``rounds`` times."""
    yield loads[0]
    for number in range(rounds):
        yield from random.Random(number).sample(loads[1:], len(loads) - 1)


async def run_unless(stop: threading.Event, load: Coroutine[None, None, None]) -> None:
    """Runs ``load``; cancels it and raises RuntimeError soon after ``stop`` is set."""
    running = asyncio.ensure_future(load)
    while not running.done():
        await asyncio.wait([running], timeout=STOP_POLL_SECONDS)
        if stop.is_set():
            running.cancel()
            raise RuntimeError("stopped within a load")
    await running
