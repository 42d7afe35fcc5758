"""Measures a real group: starts the whole stack, lets it serve the loads, and reads the steps from its logs.

The whole stack and not the ranks alone, since the tiers share the cores with a group on CPUs.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape
from albireo.local.redis_server import LocalRedis
from albireo.local.settings import StackSettings
from albireo.local.stack import Stack
from albireo.planning.calibration.loads import Load, requests, serve
from albireo.planning.calibration.steps import MeasuredStep, StepReader
from albireo.store.redis_store import RedisStore
from worker_svc.batch.slot_table import SlotTable
from worker_svc.model.config import ModelConfig
from worker_svc.sampling.layout import SamplingMode, SamplingPolicy


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: a model on a device at one TP degree."""

    model: Path
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    tp: int
    max_seqs: int
    sampling: SamplingMode = "auto"


def measure(
    setting: Setting, loads: Sequence[Load], on_load: Callable[[Load], None] = lambda load: None
) -> list[MeasuredStep]:
    """Steps of all loads, one load after the other.

    Raises ValueError for invalid options; StackError, GaveUp and RedisServerError where the stack does not
    start; RuntimeError where a request fails.
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
                stack.wait_ready(threading.Event())
                return _serve_all(stack, setting, loads, on_load)
        finally:
            redis.stop()


def _serve_all(
    stack: Stack, setting: Setting, loads: Sequence[Load], on_load: Callable[[Load], None]
) -> list[MeasuredStep]:
    keys = Keys(stack.settings.model_name, stack.settings.group)
    store = RedisStore.open(stack.settings.redis_address, keys)
    group = stack.group()
    shape = GroupShape(group.num_blocks, group.max_seqs, group.max_model_len)
    config = ModelConfig.from_dir(setting.model)
    table = SlotTable(shape, config.vocab_size, config.eos_ids, setting.tp)
    reader = StepReader(store, keys, table, SamplingPolicy(setting.sampling, 0, setting.tp))
    steps: list[MeasuredStep] = []
    try:
        for number, load in enumerate(loads):
            on_load(load)
            load = load.within(group.max_model_len)
            messages = requests(load, vocab_size=config.vocab_size, seed=number)
            asyncio.run(serve(stack.target, load, messages))
            steps += reader.read(load.name)
    finally:
        store.close()
    return steps
