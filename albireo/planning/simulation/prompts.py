"""Prompts of a workload as token ids: all different, but where requests share a prefix or a conversation.

The clients ask.
"""

from __future__ import annotations

import numpy as np

from albireo.planning.simulation.runner import OUTPUT_ID, VOCAB_SIZE
from albireo.planning.workload import Workload

FIRST_ID = OUTPUT_ID + 1
POOL = 1 << 15
"""Random ids, of which each prompt is a part: to draw every prompt anew would take longer than its steps."""


class Prompts:
    """Each prompt, or shared prefix and rest, begins with its own number in two ids. So the first KV block
    differs, and with it the hashes of all blocks that follow."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._continued = workload.next_turns.keys()
        self._so_far: dict[int, tuple[int, ...]] = {}  # a conversation up to its last answer, by turn
        longest = max((request.prompt for request in workload.requests), default=0)
        draw = np.random.default_rng(workload.seed)
        pool = draw.integers(FIRST_ID, VOCAB_SIZE, POOL + longest)
        self._pool: tuple[int, ...] = tuple(pool.tolist())
        self._begins: list[int] = draw.integers(0, POOL, 1024).tolist()
        self._prefixes: dict[str, int] = {}  # number of each
        self._numbers = 0

    def of(self, index: int) -> tuple[int, ...]:
        """Call once for each request, for a turn after the one before."""
        prompt = self._prompt(index)
        if index in self._continued:
            self._so_far[index] = prompt + (OUTPUT_ID,) * self._workload.requests[index].outputs
        return prompt

    def _prompt(self, index: int) -> tuple[int, ...]:
        request = self._workload.requests[index]
        if request.after is not None:
            so_far = self._so_far.pop(request.after)
            return so_far + self._part(self._number(), self._workload.own_tokens(index))
        if not request.prefix:
            return self._part(self._number(), request.prompt)
        if request.prefix not in self._prefixes:
            self._prefixes[request.prefix] = self._number()
        shared = self._part(self._prefixes[request.prefix], request.prefix_tokens)
        return shared + self._part(self._number(), request.prompt - request.prefix_tokens)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _part(self, number: int, length: int) -> tuple[int, ...]:
        base = VOCAB_SIZE - FIRST_ID
        begin = self._begins[number % len(self._begins)]
        name = (FIRST_ID + number % base, FIRST_ID + number // base % base)
        return (*name, *self._pool[begin : begin + length - 2])[:length] if length > 2 else name[:length]
