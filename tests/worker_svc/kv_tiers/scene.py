"""The transfers of a small cache, one plan after the other, as the stages call them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch

from albireo.contract.plan import Admission, Chunk, Grant, Plan, SamplingParams
from albireo.contract.tiers import Fetch, Spill
from tests.worker_svc.kv_tiers.memory_tier import MemoryTier
from worker_svc.kv_tiers.copies import CpuCopies
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.record import Recorded
from worker_svc.kv_tiers.step_transfers import StepTransfers
from worker_svc.kv_tiers.transfers import KvTransfers
from worker_svc.model.kv_cache import KVCache, LayerCache

LAYOUT = KvLayout(5, 2, 4, torch.float32, "a checkpoint", 1, 0)
BLOCKS = 80
SLOTS = 4
SECONDS = 5.0
"""For what happens at once, on a machine that is busy."""


def key(name: int) -> bytes:
    return name.to_bytes(16, "big")


def kv(name: int) -> torch.Tensor:
    """Some block, ``[*LAYOUT.block_shape]``, the same one for the same name."""
    return torch.randn(LAYOUT.block_shape, generator=torch.Generator().manual_seed(name))


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.001)


def spill(blocks: dict[int, int], *, names: list[int], tier: int = 0) -> Spill:
    """``blocks``: frame by block."""
    return Spill(tier, tuple(blocks), tuple(blocks.values()), tuple(map(key, names)))


def fetch(blocks: dict[int, int], *, names: list[int], tier: int = 0) -> Fetch:
    return Fetch(0, tier, tuple(blocks), tuple(blocks.values()), tuple(map(key, names)))


def chunk_plan(step: int, *fetches: Fetch, slot: int = 0) -> Plan:
    """A slot is admitted with what it fetches, and the same step reads it."""
    blocks = tuple(block for fetch in fetches for block in fetch.blocks)
    tokens = (0,) * (16 * len(blocks) + 1)
    return Plan(
        1,
        step,
        admissions=(Admission(slot, 100 + step, "", tokens, 0, len(tokens) - 1, SamplingParams(1, 0)),),
        fetches=tuple(fetch._replace(slot=slot) for fetch in fetches),
        grants=(Grant(slot, blocks),),
        chunks=(Chunk(slot, len(tokens) - 1, 1),),
    )


class Scene:
    """A cache of 80 blocks, and tiers below it."""

    def __init__(self, num_tiers: int = 1, frames: int = 64) -> None:
        layers, *part = LAYOUT.block_shape
        storage = torch.zeros(layers, part[0], BLOCKS, *part[1:])
        self.cache = KVCache(tuple(LayerCache(keys, values) for keys, values in storage), storage)
        self.tiers = [MemoryTier(LAYOUT, frames, f"tier {number}") for number in range(num_tiers)]
        self.transfers = KvTransfers(self.tiers, CpuCopies(self.cache), LAYOUT, BLOCKS)
        self.incarnations = np.zeros(SLOTS, dtype=np.int64)

    def put(self, block: int, name: int) -> None:
        self.cache.storage[:, :, block] = kv(name)

    def holds(self, block: int, name: int) -> bool:
        return torch.equal(self.cache.storage[:, :, block], kv(name))

    def begin(self, plan: Plan) -> StepTransfers | None:
        for admission in plan.admissions:
            self.incarnations[admission.slot] = admission.incarnation
        return self.transfers.begin(plan, self.incarnations)

    def run(self, plan: Plan) -> SimpleNamespace:
        """A whole step: which of the slots that it reads lack KV, and what is new for its result."""
        step = self.begin(plan)
        missing = []
        if step is not None:
            missing = self.compute(step)
            step.settle()
        return SimpleNamespace(
            missing=missing, step=step, recorded=self.transfers.record.take() or Recorded()
        )

    def compute(self, step: StepTransfers) -> list[bool]:
        step.start()
        for layer, found in enumerate(step.caches(self.cache.layers)):
            assert found is self.cache.layers[layer]
        return step.missing()

    def stored(self, frame: int, name: int, tier: int = 0) -> bool:
        return self.tiers[tier].contents().get(frame) == key(name)


@contextmanager
def scene(num_tiers: int = 1, frames: int = 64) -> Iterator[Scene]:
    found = Scene(num_tiers, frames)
    try:
        yield found
    finally:
        for tier in found.tiers:
            tier.reads.set()
            tier.writes.set()
        found.transfers.close()
