"""Runners that run plans of a context past the device's memory, as jobs of a group of ranks.

Imported by every rank: it must stay free of transformers, whose import takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import torch

from albireo.contract.plan import Plan, SamplingParams, blocks_for
from albireo.contract.tiers import Frames
from albireo.runtime.kv_memory import KvMemory
from tests.worker_svc.pipeline import Sampled, in_turn, overlapped
from tests.worker_svc.runner.streamed_plans import (
    BLOCKS,
    FRAMES,
    LAYERS,
    LONGEST,
    OTHER,
    SAMPLING,
    STREAMED,
    Writer,
    plain_plans,
)
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kv_tiers.disk import DiskTier
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.model.config import ModelConfig
from worker_svc.model.formats import AS_THE_MODEL, Formats
from worker_svc.model.kv_cache import block_bytes, kv_dtype
from worker_svc.runner.model_runner import ModelRunner

CPU = torch.device("cpu")


def by_slot(sampled: list[Sampled]) -> dict[int, list[int]]:
    """Tokens of each slot, in the order of the steps."""
    found: dict[int, list[int]] = {}
    for slots, _, ids, _ in sampled:
        for slot, token in zip(slots, ids, strict=True):
            found.setdefault(slot, []).append(token)
    return found


@contextmanager
def runner_of(
    directory: Path,
    group: TPGroup,
    *,
    blocks: int,
    tier: Path | None = None,
    device: torch.device = CPU,
    formats: Formats = AS_THE_MODEL,
) -> Iterator[ModelRunner]:
    config = ModelConfig.from_dir(directory)

    def opened(layout: KvLayout) -> list[Tier]:
        assert tier is not None
        tier.mkdir(exist_ok=True)
        return [DiskTier.open(tier / f"rank{group.rank}", FRAMES * layout.block_bytes, layout)]

    runner = ModelRunner(
        directory,
        group,
        device=device,
        dtype=torch.float32,
        kv_memory=KvMemory(blocks * block_bytes(config, group.size, kv_dtype(formats, torch.float32))),
        max_seqs=4,
        max_model_len=LONGEST,
        tiers=None if tier is None else opened,
        formats=formats,
    )
    try:
        yield runner
    finally:
        runner.close()


@dataclass(frozen=True)
class Tokens:
    """The tokens of all slots, of plans that are run in turn or by overlapping stages."""

    directory: Path
    sampling: SamplingParams
    seed: int
    tier: Path
    overlap: bool
    device: torch.device = CPU
    formats: Formats = AS_THE_MODEL

    def __call__(self, group: TPGroup) -> dict[int, list[int]]:
        plans = Writer(self.sampling, Random(self.seed)).write()
        tier = self.tier / f"{self.seed}{self.overlap}{self.sampling.temperature}"
        runner_with = partial(runner_of, self.directory, group, device=self.device, formats=self.formats)
        with runner_with(blocks=BLOCKS, tier=tier) as runner:
            found = by_slot((overlapped if self.overlap else in_turn)(runner, plans))
            assert runner.transfers is not None
            assert not runner.transfers.failures
            return found


@dataclass(frozen=True)
class PlainTokens:
    directory: Path
    sampling: SamplingParams
    steps: int
    formats: Formats = AS_THE_MODEL

    def __call__(self, group: TPGroup) -> dict[int, list[int]]:
        blocks = 2 * blocks_for(LONGEST) + 40
        with runner_of(self.directory, group, blocks=blocks, formats=self.formats) as runner:
            return by_slot(in_turn(runner, plain_plans(self.sampling, self.steps)))


def prompt_logprobs(runner: ModelRunner, plans: list[Plan]) -> dict[int, float]:
    """Of the streamed prompt's tokens, by index."""
    found: dict[int, float] = {}
    runner.reset()
    for plan in plans:
        output = runner.execute(runner.prepare(plan)).to_host()
        start, logprobs = output.prompt_logprobs.get(50 + STREAMED, (0, []))
        found |= {index: token.logprob for index, token in enumerate(logprobs, start)}
    return found


@dataclass(frozen=True)
class Damage:
    """One rank's copy of a frame has a flipped bit from some step on."""

    directory: Path
    tier: Path
    rank: int
    frame: int
    layer: int
    step: int

    def __call__(self, group: TPGroup) -> Damaged:
        found = Damaged()
        self.tier.mkdir(exist_ok=True)
        with runner_of(self.directory, group, blocks=BLOCKS, tier=self.tier) as runner:
            runner.reset()
            for plan in Writer(SAMPLING, Random(1)).write():
                if plan.step == self.step and group.rank == self.rank:
                    self._flip_a_bit(runner, group)
                output = runner.execute(runner.prepare(plan)).to_host()
                rows = zip(output.slots.tolist(), output.ids.tolist(), strict=True)
                found.others += [token for slot, token in rows if slot == OTHER]
                if output.tiers is not None:
                    found.lost += output.tiers.lost
                    if output.tiers.unfetched:
                        found.unfetched[plan.step] = output.tiers.unfetched
        return found

    def _flip_a_bit(self, runner: ModelRunner, group: TPGroup) -> None:
        part = block_bytes(runner.config, group.size, torch.float32) // LAYERS
        [path] = (self.tier / f"rank{group.rank}").glob("*.data")
        with path.open("r+b") as file:
            file.seek((self.frame * LAYERS + self.layer) * part + 100)
            [byte] = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 4]))


@dataclass
class Damaged:
    """What the steps of rank 0 reported."""

    others: list[int] = field(default_factory=list)  # tokens of the other request
    lost: list[Frames] = field(default_factory=list)
    unfetched: dict[int, tuple[int, ...]] = field(default_factory=dict)  # by step
