"""Transfers between KV tiers and blocks of the simulated device, by random plans, and what must come of them.

Steps are prepared ahead of those that are launched, and those ahead of those that are settled, as in the
stages of a rank. Instead of a model a step checks what its slot fetched, and fills blocks, layer by layer.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch
from torch import Tensor

from albireo.contract.plan import Chunk, Grant, Plan
from albireo.contract.tiers import Fetch, Spill
from tests.worker_svc.kv_tiers.memory_tier import MemoryTier
from tests.worker_svc.simulated_cuda.device import CUDA
from worker_svc.kv_tiers.cuda_copies import CudaCopies
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.step_transfers import StepTransfers
from worker_svc.kv_tiers.transfers import KvTransfers
from worker_svc.model.kv_cache import KVCache, LayerCache

LAYOUT = KvLayout(3, 1, 2, torch.float32, "a checkpoint", 1, 0)
BLOCKS, FRAMES, NAMES = 14, 30, 1000


def key(name: int) -> bytes:
    return name.to_bytes(16, "big")


@dataclass(eq=False)
class Step:
    """A plan on its way. What blocks hold has names."""

    plan: Plan
    transfers: StepTransfers | None
    fills: dict[int, int]  # by block
    reads: dict[int, int]  # by block: what the slot fetched
    seen: dict[int, Tensor] = field(default_factory=dict)  # by block: what the step found, on the host
    missing: bool = False
    done: torch.cuda.Event | None = None


class KvScene:
    """``follower``: a rank other than the first. Its steps are settled when rank 0's are: it has launched
    and run them then, but what it copies for spills may be behind."""

    def __init__(self, seed: int, *, follower: bool = False) -> None:
        self._draw = Random(seed)
        self._follower = follower
        shape = LAYOUT.block_shape
        storage = torch.zeros(shape[0], shape[1], BLOCKS, *shape[2:], device=CUDA)
        self._cache = KVCache(tuple(LayerCache(keys, values) for keys, values in storage), storage)
        self._truth = torch.randn(NAMES, *shape, generator=torch.Generator().manual_seed(seed))
        self._source = self._truth.to(CUDA)
        self._tier = MemoryTier(LAYOUT, FRAMES)
        self._transfers = KvTransfers([self._tier], CudaCopies(self._cache), LAYOUT, BLOCKS)
        self._incarnations = np.zeros(BLOCKS, dtype=np.int64)
        self._blocks: dict[int, int] = {}  # names of what idle blocks hold
        self._busy = Counter[int]()  # blocks of steps that are not settled
        self._frames: dict[int, int] = {}
        self._reading = Counter[int]()  # frames of such steps
        self._names = 0
        self._unread: tuple[int, Fetch] | None = None  # the slot of the last plan, where it only fetched
        self._staged: deque[Step] = deque()
        self._launched: deque[Step] = deque()
        self.fetched = self.cancelled = self.moved = self.failed = 0
        self.wrong: list[str] = []

    def run(self, steps: int) -> None:
        for number in range(1, steps + 1):
            if self._draw.random() < 0.3:  # the tier stands still for some steps
                self._tier.writes.set() if not self._tier.writes.is_set() else self._tier.writes.clear()
            self._staged.append(self._prepare(number))
            while len(self._staged) > self._draw.randrange(3):
                self._launch(self._staged.popleft())
            while len(self._launched) > self._draw.randrange(3):
                self._settle(self._launched.popleft())
        while self._staged:
            self._launch(self._staged.popleft())
        while self._launched:
            self._settle(self._launched.popleft())
        self._tier.writes.set()
        self._transfers.close()
        self._check_frames()

    def bring(self, blocks: int) -> None:
        """A step of its own, which fetches and reads some blocks that the tier has."""
        numbers, keys = tuple(range(blocks)), tuple(map(key, range(blocks)))
        self._tier.write(numbers, keys, self._truth[:blocks])
        plan = Plan(
            1,
            1,
            fetches=(Fetch(0, 0, numbers, numbers, keys),),
            grants=(Grant(0, numbers),),
            chunks=(Chunk(0, 0, 1),),
        )
        self._launch(Step(plan, self._transfers.begin(plan, self._incarnations), {}, {}))
        self._settle(self._launched.popleft())

    def spill_at_once(self) -> bool:
        """Fills a block and spills it in the step behind; whether that brings what the block holds."""
        self._launch(Step(Plan(1, 1), None, {1: 5}, {}))
        plan = Plan(1, 2, spills=(Spill(0, (1,), (0,), (key(5),)),))
        transfers = self._transfers.begin(plan, self._incarnations)
        assert transfers is not None
        self._launch(Step(plan, transfers, {}, {}))
        transfers.settle()
        while self._launched:
            self._settle(self._launched.popleft())
        self._transfers.close()
        self._check_frames()
        return not self.wrong

    def give_away_behind_a_copy(self) -> bool:
        """Of a follower: a block changes hands when the copy that spills it has been launched and not run.
        Whether the tier gets what was spilled."""
        self._tier.writes.clear()  # the first spill keeps the thread that would wait for the second
        self._launch(Step(Plan(1, 1), None, {1: 5, 2: 6}, {}))
        self._settle(self._launched.popleft())
        for block in (1, 2):
            plan = Plan(1, 1 + block, spills=(Spill(0, (block,), (block,), (key(4 + block),)),))
            transfers = self._transfers.begin(plan, self._incarnations)
            assert transfers is not None
            self._launch(Step(plan, transfers, {}, {}))
            assert transfers.spills[0].copied.wait(20)
            self._settle(self._launched.popleft())
        plan = Plan(1, 4, grants=(Grant(0, (2,)),))
        self._launch(Step(plan, self._transfers.begin(plan, self._incarnations), {2: 7}, {}))
        self._settle(self._launched.popleft())
        self._tier.writes.set()
        self._transfers.close()
        self._check_frames()
        return not self.wrong

    def _idle(self) -> list[int]:
        idle = [block for block in range(BLOCKS) if not self._busy[block]]
        self._draw.shuffle(idle)
        return idle

    def _prepare(self, number: int) -> Step:
        """Spills of idle blocks, some of which change hands with the plan; and fetches into others."""
        idle, slot = self._idle(), number % BLOCKS
        used: set[int] = set()
        released: tuple[int, ...] = ()
        fills: dict[int, int] = {}
        if self._unread is not None:  # it goes before it was read, and its blocks are filled at once
            slot_before, fetch = self._unread
            released, self._unread = (slot_before,), None
            for block in fetch.blocks:
                fills[block] = self._new_name()
                self._busy[block] -= 1
            self._reading.subtract(fetch.frames)
            self.cancelled += 1
        spill = self._spill([block for block in idle if block in self._blocks][:3])
        used.update(spill.blocks)
        move = self._draw.random() < 0.5
        targets = [block for block in idle if block not in used or move]
        fetch = self._fetch(slot, targets[: self._draw.randrange(4)], set(spill.frames))
        self.moved += len(used.intersection(fetch.blocks))
        rest = [block for block in targets if block not in fetch.blocks]
        for block in rest[: self._draw.randrange(3)]:
            fills[block] = self._new_name()
            self.moved += block in used
        names = [self._frames[frame] for frame in fetch.frames]
        later = bool(fetch.blocks) and self._draw.random() < 0.3
        if later:
            self._unread = slot, fetch
            self._busy.update(fetch.blocks)
            self._reading.update(fetch.frames)
        granted = tuple(dict.fromkeys((*fills, *fetch.blocks)))
        for block in granted:
            self._blocks.pop(block, None)
        plan = Plan(
            1,
            number,
            released=released,
            spills=(spill,) if spill.blocks else (),
            fetches=(fetch,) if fetch.blocks else (),
            grants=(Grant(slot, granted),) if granted else (),
            chunks=() if later or not fetch.blocks else (Chunk(slot, 0, 1),),
        )
        self._incarnations[slot] = number
        self._busy.update({*granted, *spill.blocks})
        self._reading.update(fetch.frames)
        transfers = self._transfers.begin(plan, self._incarnations)
        reads = {} if later else dict(zip(fetch.blocks, names, strict=True))
        return Step(plan, transfers, fills, reads)

    def _new_name(self) -> int:
        self._names += 1
        return self._names - 1

    def _spill(self, blocks: list[int]) -> Spill:
        free = [frame for frame in range(FRAMES) if not self._reading[frame]]
        frames = self._draw.sample(free, min(len(blocks), len(free)))
        names = [self._blocks[block] for block in blocks[: len(frames)]]
        self._frames.update(zip(frames, names, strict=True))
        return Spill(0, tuple(blocks[: len(frames)]), tuple(frames), tuple(map(key, names)))

    def _fetch(self, slot: int, blocks: list[int], written: set[int]) -> Fetch:
        known = [frame for frame in self._frames if frame not in written]
        frames = self._draw.sample(known, min(len(known), len(blocks)))
        keys = tuple(key(self._frames[frame]) for frame in frames)
        return Fetch(slot, 0, tuple(blocks[: len(frames)]), tuple(frames), keys)

    def _launch(self, step: Step) -> None:
        transfers, storage = step.transfers, self._cache.storage
        if transfers is not None:
            transfers.start()
        for block in step.fills:
            storage[:, :, block].zero_()
        seen = {block: torch.empty(LAYOUT.block_shape, pin_memory=True) for block in step.reads}
        layers = self._cache.layers
        for layer, _ in enumerate(layers if transfers is None else transfers.caches(layers)):
            for block in step.reads:
                seen[block][layer].copy_(storage[layer, :, block], non_blocking=True)
            for block, name in step.fills.items():
                storage[layer, :, block].copy_(self._source[name, layer])
        if transfers is not None:
            step.missing = any(transfers.missing())
        step.seen = seen
        step.done = torch.cuda.current_stream().record_event()
        self._launched.append(step)

    def _settle(self, step: Step) -> None:
        assert step.done is not None
        step.done.synchronize()
        if step.transfers is not None and not self._follower:
            step.transfers.settle()
        self._blocks |= step.fills
        if step.missing:
            self.failed += 1
        else:
            self.fetched += len(step.reads)
            self._blocks |= step.reads
            for block, name in step.reads.items():
                if not torch.equal(step.seen[block], self._truth[name]):
                    self.wrong.append(f"step {step.plan.step} fetched block {block}")
        granted = {block for grant in step.plan.grants for block in grant.blocks}
        self._busy.subtract({*granted, *(block for spill in step.plan.spills for block in spill.blocks)})
        self._reading.subtract(frame for fetch in step.plan.fetches for frame in fetch.frames)

    def _check_frames(self) -> None:
        """What a tier has under a key is what the key names, also where nothing has read it."""
        out = torch.empty(1, *LAYOUT.block_shape)
        for frame, found in self._tier.contents().items():
            self._tier.read([frame], [found], range(LAYOUT.layers), out)
            if not torch.equal(out[0], self._truth[int.from_bytes(found, "big")]):
                self.wrong.append(f"frame {frame}")
