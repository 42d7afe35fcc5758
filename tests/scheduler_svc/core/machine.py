"""The rules of random histories of the core, with a model of everything around it.

Groups of different shapes join, leave and die on the way, one to three at a time, or none for a while; the
windows change, as look-ahead ``auto`` changes them.
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
from albireo.contract.tiers import TierShape
from scheduler_svc.core import Limits, Speed

from .world import World

LARGEST = GroupShape(30, 5, 200)
"""Holds every request of these histories."""
SEQS = 5
HEADS = tuple(tuple((7 * k + 3 * i) % 24 for i in range(80)) for k in range(2))
"""Prompts begin with a part of one of these, so that they share prefixes."""

EXAMPLES = int(os.environ.get("ALBIREO_TEST_EXAMPLES", "20"))
"""Histories of each machine. Set it to thousands to hunt."""


NUMBERS = st.integers(0, 2)
"""Which of the groups; less than all there are where there are fewer."""


def shape_of(num_blocks: int, max_seqs: int, length: float) -> GroupShape:
    return GroupShape(num_blocks, max_seqs, max(4, int(length * num_blocks * BLOCK_SIZE)))


SHAPES = st.builds(shape_of, st.integers(2, 9), st.integers(1, SEQS + 1), st.floats(0.3, 1))


def _with_tiers(machine: CoreMachine) -> st.SearchStrategy[GroupShape]:
    return st.builds(machine.with_tiers, machine.shapes, machine.tiers)


MACHINE_SHAPES = st.runner().flatmap(_with_tiers)
"""Those of the machine that runs, with tiers if it has them."""


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
    max_groups = 1
    followed = False
    shapes = SHAPES
    largest = LARGEST
    prefix_cache: st.SearchStrategy[bool] = st.sampled_from([True, True, False])
    tiers: st.SearchStrategy[tuple[TierShape, ...]] = st.just(())  # below the blocks of each group

    @staticmethod
    def with_tiers(shape: GroupShape, tiers: tuple[TierShape, ...]) -> GroupShape:
        return replace(shape, tiers=tiers)

    @initialize(
        shape=MACHINE_SHAPES,
        max_seqs=st.integers(1, SEQS),
        spare_tokens=st.integers(0, 40),
        prefill_chunk=st.sampled_from([1, 5, 16, 24, 64]),
        prefix_cache=st.runner().flatmap(lambda machine: machine.prefix_cache),
        late=st.booleans(),
    )
    def open(
        self,
        shape: GroupShape,
        max_seqs: int,
        spare_tokens: int,
        prefill_chunk: int,
        prefix_cache: bool,
        late: bool,
    ) -> None:
        limits = Limits(
            max_num_batched_tokens=max_seqs + spare_tokens,
            max_num_seqs=max_seqs,
            prefill_chunk=prefill_chunk,
            max_in_flight=self.max_in_flight,
            prefix_cache=prefix_cache,
            priority_seconds=5.0,
            digest_every=3,
        )
        self.world = World(limits, followed=self.followed)
        self.joined = 0
        if self.max_groups == 1 or not late:
            self._join(shape)

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
        tenant=st.sampled_from(["a", "a", "a", "b", "c"]),
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
        tenant: str,
    ) -> None:
        longest = self.world.context or LARGEST.max_model_len
        prompt = (*HEADS[head][:shared], *tail)[: longest - 1] or (1,)
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
            tenant=tenant,
        )

    @rule(back=st.integers(0, 6), branch=st.sampled_from(["", "", "#0", "#1", "#3"]))
    def cancel(self, back: int, branch: str) -> None:
        self.world.cancel(f"r{len(self.world.submitted) - 1 - back}{branch}")

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(number=NUMBERS)
    def plan(self, number: int) -> None:
        if group := self._group(number):
            self.world.plan(group)

    @rule(number=NUMBERS)
    def run(self, number: int) -> None:
        if (group := self._group(number)) and self.world.groups[group].published:
            self.world.run(group)

    @rule(number=NUMBERS)
    def settle(self, number: int) -> None:
        if (group := self._group(number)) and self.world.groups[group].unsettled:
            self.world.settle(group)

    @rule()
    def place(self) -> None:
        self.world.place()

    @rule()
    def notice(self) -> None:
        self.world.notice()

    @precondition(lambda self: len(self.world.groups) < self.max_groups)
    @rule(shape=MACHINE_SHAPES)
    def join(self, shape: GroupShape) -> None:
        self._join(shape)

    @precondition(lambda self: self.max_groups > 1 and self.world.groups)
    @rule(number=NUMBERS, ran=st.integers(0, 3), died=st.sampled_from([True, True, False]))
    def leave(self, number: int, ran: int, died: bool) -> None:
        """The group has run some more of its plans, whose results are in its log."""
        name = self._group(number)
        assert name
        group = self.world.groups[name]
        for _ in range(min(ran, len(group.published))):
            group.run()
        self.world.leave(name, died=died)

    @precondition(lambda self: self.max_groups > 1)
    @rule(
        shape=st.one_of(st.runner().map(lambda machine: machine.largest), MACHINE_SHAPES),
        deaths=st.integers(2, 4),
        ran=st.integers(0, 2),
    )
    def die_again_and_again(self, shape: GroupShape, deaths: int, ran: int) -> None:
        """All groups die with what was just planned, several times: requests run alone, and end."""
        for _ in range(deaths):
            self._join(shape)
            names = list(self.world.groups)
            for name in names:
                self.world.plan(name)
            for name in names:
                for _ in range(min(ran, len(self.world.groups[name].published))):
                    self.world.run(name)
                self.world.leave(name, died=True)

    @rule(steps=st.integers(1, 12))
    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step()

    @precondition(lambda self: self.max_in_flight > 1)
    @rule(number=NUMBERS, plans=st.integers(1, 5))
    def set_window(self, number: int, plans: int) -> None:
        if group := self._group(number):
            self.world.groups[group].set_window(min(plans, self.max_in_flight))

    @precondition(lambda self: self.world.groups and self.world.settled)
    @rule(back=st.integers(0, 5))
    def settle_again(self, back: int) -> None:
        settled = self.world.settled
        before = self.world.core.stats()
        self.world.group.core.settle(settled[max(0, len(settled) - 1 - back)])
        assert self.world.core.stats() == before
        self.world.check()

    @precondition(lambda self: self.world.groups and self.world.unsettled)
    @rule(other=st.sampled_from([-1, 1]))
    def settle_another_epoch(self, other: int) -> None:
        result = self.world.unsettled[0]
        before = self.world.core.stats()
        self.world.group.core.settle(replace(result, epoch=result.epoch + other))
        assert self.world.core.stats() == before

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        if not any(g.shape.max_model_len >= self.world.context for g in self.world.groups.values()):
            self._join(self.largest)
        left = self.world.work_left() + sum(g.shape.num_blocks for g in self.world.groups.values())
        self.world.drain(max_steps=200 + 20 * left)

    def _join(self, shape: GroupShape) -> None:
        self.world.join(f"g{self.joined}", shape, speed=self._speed())
        self.joined += 1

    def _speed(self) -> Speed:
        """What a group has measured at its start."""
        return Speed()

    def _group(self, number: int) -> str | None:
        """The name of one of the groups that are there."""
        names = list(self.world.groups)
        return names[number % len(names)] if names else None
