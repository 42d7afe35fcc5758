"""Hand-written plans of a context past the device's memory.

Imported by every rank: it must stay free of transformers, whose import takes seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from random import Random

import torch

from albireo.contract.plan import BLOCK_SIZE, Admission, Chunk, Grant, Plan, SamplingParams, blocks_for
from albireo.contract.tiers import Offload, Span, Spill

LAYERS = 3
BLOCKS = 20  # of the device
PROMPT = 4 * BLOCKS * BLOCK_SIZE
OUTPUTS = 10
LONGEST = PROMPT + 2 * OUTPUTS
FRAMES = blocks_for(LONGEST)
OTHER, STREAMED, AGAIN = 0, 1, 2  # slots
SAMPLING = SamplingParams(max_tokens=1000, seed=5, temperature=0.0, ignore_eos=True)
SEEDED = replace(
    SAMPLING, seed=9, temperature=1.3, repetition_penalty=1.3, frequency_penalty=0.5, bad_ids=(3,), logprobs=1
)


def prompt(length: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(100, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def key(block: int) -> bytes:
    return block.to_bytes(16, "big")


@dataclass
class Writer:
    """Writes the plans of one epoch: a request that decodes all the time, and one that is streamed."""

    sampling: SamplingParams
    random: Random
    plans: list[Plan] = field(default_factory=list)
    free: deque[int] = field(default_factory=lambda: deque(range(BLOCKS)))
    other: int = 20  # tokens of the other request
    computed: int = 0
    held: list[int] = field(default_factory=list)  # blocks of the streamed request that it has on the device
    spilled: int = 0  # blocks of it that are in frames, of which so many are streamed:
    offloaded: int = 0
    under_way: Span | None = None

    def write(self) -> list[Plan]:
        """In each step something may be spilled, offloaded, or neither."""
        first = 3 * BLOCK_SIZE
        self._put(
            admissions=(self.admission(OTHER, prompt(20, 1)), self.admission(STREAMED, prompt(PROMPT, 2))),
            grants=(self.grant(OTHER, 2), self.grant(STREAMED, 3)),
            chunks=(Chunk(OTHER, 0, 20), Chunk(STREAMED, 0, first)),
            decodes=0,
        )
        self.computed = first
        while self.computed < PROMPT + OUTPUTS:
            self._step()
        self._again()
        return self.plans

    def admission(self, slot: int, tokens: tuple[int, ...], num_cached: int = 0) -> Admission:
        return Admission(slot, 50 + slot, f"r{slot}", tokens, 0, num_cached, self.sampling)

    def grant(self, slot: int, count: int) -> Grant:
        blocks = tuple(self.free.popleft() for _ in range(count))
        if slot == STREAMED:
            self.held += blocks
        return Grant(slot, blocks)

    def _put(self, *, grants: tuple[Grant, ...] = (), decodes: int = 1, **parts: object) -> None:
        if decodes and blocks_for(self.other + 1) > blocks_for(self.other):
            grants = (*grants, self.grant(OTHER, 1))
        self.other += decodes
        step = len(self.plans) + 1
        self.plans.append(Plan(1, step, grants=grants, num_decodes=decodes, **parts))  # type: ignore[arg-type]

    def _step(self) -> None:
        offloads: tuple[Offload, ...] = ()
        count = self.spilled - self.offloaded
        left: list[int] = []
        if count and (self.random.random() < 0.7 or self._needs_blocks()):
            frames = tuple(range(self.offloaded, self.spilled))
            offloads = (Offload(STREAMED, 0, frames, tuple(map(key, frames))),)
            left, self.held = self.held[:count], self.held[count:]
            self.offloaded = self.spilled
        spills: tuple[Spill, ...] = ()
        full = self.computed // BLOCK_SIZE
        if full > self.spilled and (self.random.random() < 0.5 or self._needs_blocks()):
            frames = tuple(range(self.spilled, full))
            blocks = tuple(self.held[frame - self.offloaded] for frame in frames)
            spills = (Spill(0, blocks, frames, tuple(map(key, frames))),)
            self.spilled = full
        grants, spans = self._rows()
        self._put(grants=grants, spills=spills, offloads=offloads, spans=spans)
        self.free += left

    def _needs_blocks(self) -> bool:
        return len(self.free) < 4

    def _rows(self) -> tuple[tuple[Grant, ...], tuple[Span, ...]]:
        if not self.offloaded or self.random.random() < 0.1:
            return (), ()
        grants: tuple[Grant, ...] = ()
        if self.under_way is None:
            count = self.random.randint(10, 80) if self.computed < PROMPT else 1
            count = min(count, max(1, PROMPT - self.computed))
            blocks = blocks_for(self.computed + count) - self.offloaded - len(self.held)
            if blocks > len(self.free) - 1:
                return (), ()
            if blocks > 0:
                grants = (self.grant(STREAMED, blocks),)
            self.under_way = Span(STREAMED, self.computed, count, 0, 0)
        span = replace(
            self.under_way,
            first_layer=self.under_way.last_layer,
            last_layer=self.random.randint(self.under_way.last_layer + 1, LAYERS),
        )
        self.under_way = span
        if span.last_layer == LAYERS:
            self.computed += span.count
            self.under_way = None
        return grants, (span,)

    def _again(self) -> None:
        """The same prompt once more, whose blocks are in frames: streamed without a block of them."""
        frames = tuple(range(PROMPT // BLOCK_SIZE - 1))
        cached = len(frames) * BLOCK_SIZE
        self.free += self.held
        for last in range(1, LAYERS + 1):
            self._put(
                released=(STREAMED,) if last == 1 else (),
                admissions=(self.admission(AGAIN, prompt(PROMPT, 2), cached),) if last == 1 else (),
                offloads=(Offload(AGAIN, 0, frames, tuple(map(key, frames))),) if last == 1 else (),
                grants=(self.grant(AGAIN, 2),) if last == 1 else (),
                spans=(Span(AGAIN, cached, PROMPT - cached, last - 1, last),),
            )
        for output in range(OUTPUTS):
            self._put(spans=(Span(AGAIN, PROMPT + output, 1, 0, LAYERS),))


def plain_plans(sampling: SamplingParams, steps: int) -> list[Plan]:
    """Both requests in a runner with enough memory."""
    longest = blocks_for(LONGEST)
    writer = Writer(sampling, Random(0))
    return [
        Plan(
            1,
            1,
            admissions=(
                writer.admission(OTHER, prompt(20, 1)),
                writer.admission(STREAMED, prompt(PROMPT, 2)),
            ),
            grants=(
                Grant(STREAMED, tuple(range(longest))),
                Grant(OTHER, tuple(range(longest, longest + blocks_for(20 + steps)))),
            ),
            chunks=(Chunk(OTHER, 0, 20), Chunk(STREAMED, 0, PROMPT)),
        ),
        *(
            Plan(
                1,
                step,
                paused=(STREAMED,) if step == OUTPUTS + 2 else (),
                num_decodes=1 + (step < OUTPUTS + 2),
            )
            for step in range(2, steps + 1)
        ),
    ]
