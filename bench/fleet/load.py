"""Requests of a case: made from a seed, put into the inbox, and timed until their first and last token."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import SamplingParams, Submission
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from bench.fleet.group import Listener


@dataclass(slots=True)
class Timed:
    """One request, in seconds of the clock; 0: not yet."""

    sent: float
    prompt: int  # tokens
    group: str = ""
    first: float = 0.0
    cached: int = 0
    ended: float = 0.0
    tokens: int = 0


Draw = Callable[[random.Random], tuple[tuple[int, ...], int, str]]
"""Draws a request: its prompt, the number of its output tokens, its tenant."""


class Load(Listener):
    """Arrivals, and a record of each request by name."""

    def __init__(self, clock: VirtualClock, space: Keyspace, keys: Keys, draw: Draw, seed: int) -> None:
        self.requests: dict[str, Timed] = {}
        self._clock = clock
        self._space = space
        self._keys = keys
        self._draw = draw
        self._random = random.Random(seed)
        self._closed = False  # a request that ends is replaced

    def run_closed(self, concurrency: int) -> None:
        """``concurrency`` requests at a time from now on; each that ends is replaced at once."""
        self._closed = True
        for _ in range(concurrency):
            self._submit()

    def run_open(self, rate: float, until: float) -> None:
        """Poisson arrivals, ``rate`` a second, in an actor."""

        def arrive() -> None:
            while self._clock.now() < until:
                self._clock.sleep(self._random.expovariate(rate))
                self._submit()

        self._clock.start("arrivals", arrive)

    def first_token(self, name: str, group: str, cached: int) -> None:
        timed = self.requests[name]
        timed.first, timed.group, timed.cached = self._clock.now(), group, cached

    def ended(self, name: str, group: str, tokens: int) -> None:
        timed = self.requests[name]
        timed.ended, timed.tokens = self._clock.now(), tokens
        if self._closed:
            self._submit()

    def between(self, begin: float, end: float) -> Sequence[Timed]:
        """Requests that were sent between two moments."""
        return [timed for timed in self.requests.values() if begin <= timed.sent < end]

    def _submit(self) -> None:
        prompt, outputs, tenant = self._draw(self._random)
        name = f"r{len(self.requests)}@bench"
        self.requests[name] = Timed(self._clock.now(), len(prompt))
        sampling = SamplingParams(max_tokens=outputs, seed=0)
        entry = codec.submission_to_bytes(Submission(name, prompt, sampling, tenant=tenant))
        self._space.append_now(self._keys.inbox, entry)
