"""The rules of random histories of the core, with a model of everything around it.

The window changes on the way, as look-ahead ``auto`` changes it.
"""

from __future__ import annotations

import os
import unittest
from dataclasses import replace
from typing import cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from albireo.contract.plan import BLOCK_SIZE, GroupShape
from scheduler_svc.core import Limits

from .world import World

HEADS = tuple(tuple((7 * k + 3 * i) % 24 for i in range(80)) for k in range(2))
"""Prompts begin with a part of one of these, so that they share prefixes."""

EXAMPLES = int(os.environ.get("ALBIREO_TEST_EXAMPLES", "115"))
"""Histories of each machine. Set it to thousands to hunt."""


def explore(machine: type[CoreMachine], *, examples: int = EXAMPLES) -> type[unittest.TestCase]:
    """The test case that runs a machine."""
    machine.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return cast("type[unittest.TestCase]", machine.TestCase)


class CoreMachine(RuleBasedStateMachine):
    """Small pools, so that preemption, waits for reuse and prefix hits are the rule and not the exception."""

    max_in_flight = 1
    followed = False

    @initialize(
        num_blocks=st.integers(2, 9),
        max_seqs=st.integers(1, 5),
        spare_seqs=st.integers(0, 1),
        length=st.floats(0.3, 1),
        spare_tokens=st.integers(0, 40),
        prefill_chunk=st.sampled_from([1, 5, 16, 24, 64]),
        prefix_cache=st.sampled_from([True, True, False]),
    )
    def open(
        self,
        num_blocks: int,
        max_seqs: int,
        spare_seqs: int,
        length: float,
        spare_tokens: int,
        prefill_chunk: int,
        prefix_cache: bool,
    ) -> None:
        shape = GroupShape(num_blocks, max_seqs + spare_seqs, max(4, int(length * num_blocks * BLOCK_SIZE)))
        limits = Limits(
            max_num_batched_tokens=max_seqs + spare_tokens,
            max_num_seqs=max_seqs,
            prefill_chunk=prefill_chunk,
            max_in_flight=self.max_in_flight,
            prefix_cache=prefix_cache,
            priority_seconds=5.0,
            digest_every=3,
        )
        self.world = World(shape, limits, followed=self.followed)

    @rule(
        head=st.integers(0, 1),
        shared=st.integers(0, 70),
        tail=st.lists(st.integers(1, 23), max_size=20),
        max_tokens=st.integers(1, 50),
        seed=st.integers(0, 2),
        ignore_eos=st.booleans(),
        priority=st.sampled_from([0, 0, 0, -1, 1]),
        timeout_s=st.sampled_from([None, None, None, 3.0, 20.0]),
        n=st.sampled_from([1, 1, 1, 2, 3, 4]),
        prompt_logprobs=st.sampled_from([-1, -1, -1, 0]),
        gateway=st.sampled_from(["", "g1", "g2"]),
    )
    def submit(
        self,
        head: int,
        shared: int,
        tail: list[int],
        max_tokens: int,
        seed: int,
        ignore_eos: bool,
        priority: int,
        timeout_s: float | None,
        n: int,
        prompt_logprobs: int,
        gateway: str,
    ) -> None:
        prompt = (*HEADS[head][:shared], *tail)[: self.world.shape.max_model_len - 1] or (1,)
        self.world.submit(
            f"r{len(self.world.submitted)}",
            prompt,
            max_tokens=max_tokens,
            seed=seed,
            ignore_eos=ignore_eos,
            priority=priority,
            timeout_s=timeout_s,
            n=n,
            prompt_logprobs=prompt_logprobs,
            gateway=gateway,
        )

    @rule(back=st.integers(0, 6), branch=st.sampled_from(["", "", "#0", "#1", "#3"]))
    def cancel(self, back: int, branch: str) -> None:
        self.world.cancel(f"r{len(self.world.submitted) - 1 - back}{branch}")

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def plan(self) -> None:
        self.world.plan()

    @precondition(lambda self: self.world.published)
    @rule()
    def run(self) -> None:
        self.world.run()

    @precondition(lambda self: self.world.unsettled)
    @rule()
    def settle(self) -> None:
        self.world.settle()

    @rule(steps=st.integers(1, 12))
    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step()

    @precondition(lambda self: self.max_in_flight > 1)
    @rule(plans=st.integers(1, 5))
    def set_window(self, plans: int) -> None:
        self.world.set_window(min(plans, self.max_in_flight))

    @precondition(lambda self: self.world.settled)
    @rule(back=st.integers(0, 5))
    def settle_again(self, back: int) -> None:
        settled = self.world.settled
        before = self.world.core.stats()
        self.world.core.settle(settled[max(0, len(settled) - 1 - back)])
        assert self.world.core.stats() == before
        self.world.check()

    @precondition(lambda self: self.world.unsettled)
    @rule(other=st.sampled_from([-1, 1]))
    def settle_another_epoch(self, other: int) -> None:
        result = self.world.unsettled[0]
        before = self.world.core.stats()
        self.world.core.settle(replace(result, epoch=result.epoch + other))
        assert self.world.core.stats() == before

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.drain(max_steps=200 + 20 * self.world.work_left())
